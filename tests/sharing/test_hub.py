"""Models on the Hub, against a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants

import lebm
from lebm import hub
from lebm.__main__ import main
from lebm.component import describe
from lebm.errors import UserError
from tests.sharing.hub_server import TOKEN, Server, served


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Hub of its own, a cache of its own, and a token in the environment."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its tries
    with served() as running:
        # The library reads HF_ENDPOINT when it is imported, which another test may have done before.
        template = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running
    assert not [path for path in running.unknown if "/models/" in path or "/repos/" in path]


def test_a_model_goes_up_and_comes_back(
    run: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "run", "ada/digits", "--license", "apache-2.0"]) == 0
    assert f"run is now hub:ada/digits ({server.address}/ada/digits/commit/" in capsys.readouterr().out
    files = server.commits["ada/digits"][-1]
    assert set(files) == {"model.safetensors", "config.json", "README.md"}
    config = json.loads(files["config.json"])
    assert config["model"] == describe(lebm.load(run))
    assert config["facts"]["recipe"] == "latent_mle/mnist.yaml"
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert {result.metric_type for result in card.data.eval_results} == {
        "reconstruction_mse",
        "auroc/anomaly_score",
    }
    assert "lebm sample hub:ada/digits -n 64" in card.text
    before, after = lebm.load(run), lebm.load("hub:ada/digits")
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])
    assert main(["sample", "hub:ada/digits", "-n", "2", "--format", "npy"]) == 0
    assert Path("samples.npy").exists()
    fetched = [call for call in server.calls if call.startswith("GET") and "/resolve/" in call]
    assert [call.rpartition("/")[2] for call in fetched] == ["model.safetensors"]  # once, and only that


def test_a_revision_is_pinned(run: Path, server: Server) -> None:
    assert main(["push", "run", "ada/digits", "--dtype", "float16"]) == 0
    first = server.digest("ada/digits", 1)
    assert main(["push", "run", "ada/digits"]) == 0
    old, new = (next(lebm.load(f"hub:ada/digits{at}").parameters()) for at in (f"@{first}", ""))
    assert torch.equal(new, next(lebm.load(run).parameters()))
    assert not torch.equal(old, new)
    calls = len(server.calls)
    assert torch.equal(next(lebm.load(f"hub:ada/digits@{first}").parameters()), old)
    assert len(server.calls) == calls  # a commit that is here already needs no network


def test_the_token_is_written_nowhere(
    run: Path, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "run", "ada/digits"]) == 0
    assert main(["sample", "hub:ada/digits", "-n", "2"]) == 0
    assert f"Bearer {TOKEN}" in server.tokens
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in "".join(capfd.readouterr())


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert TOKEN not in error
    return error


def test_each_failure_is_one_line(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "run", "ada/digits"]) == 0
    capsys.readouterr()
    said = refusal(capsys, "sample", "hub:ada/digits@v9")
    assert f"hub:ada/digits@v9 at {server.address}: " in said
    assert "Revision Not Found" in said
    assert "Repository Not Found" in refusal(capsys, "sample", "hub:ada/letters")
    server.commits["ada/empty"] = [{}]
    assert "Entry Not Found" in refusal(capsys, "sample", "hub:ada/empty")
    wrong = ("../x", "v1/../../x", "v1/..", "v1..v2", "../x y", "")
    for name in (
        "hub:ada",
        "hub:../digits",
        "hub:a/b/c",
        *(f"hub:ada/digits@{revision}" for revision in wrong),
    ):
        assert "expected a model on the Hub, hub:USER/NAME" in refusal(capsys, "sample", name)
    for revision in ("v1/", "v1//2"):
        with pytest.raises(UserError, match="expected a model on the Hub, hub:USER/NAME"):
            hub.parsed(f"hub:ada/digits@{revision}")
    for revision in ("refs/pr/1", "v1.2", "a_b-c"):
        assert hub.parsed(f"hub:ada/digits@{revision}") == ("ada/digits", revision)
    assert "leave out @v1" in refusal(capsys, "push", "run", "ada/digits@v1")
    monkeypatch.delenv("HF_TOKEN")
    said = refusal(capsys, "push", "run", "ada/digits")
    assert "a push needs a token" in said
    assert "hf auth login" in said
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 34)
    assert "401 Unauthorized" in refusal(capsys, "push", "run", "ada/digits")


def test_without_a_network(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "run", "ada/digits"]) == 0
    assert main(["sample", "hub:ada/digits", "-n", "2"]) == 0
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    capsys.readouterr()
    assert main(["sample", "hub:ada/digits", "-n", "2"]) == 0  # the copy that is here
    capsys.readouterr()
    assert "hub:ada/letters at http://127.0.0.1:9: " in refusal(capsys, "sample", "hub:ada/letters")
    assert "ada/digits at http://127.0.0.1:9: " in refusal(capsys, "push", "run", "ada/digits")


@pytest.mark.parametrize("at", [-1, 40])
def test_a_tampered_file_is_refused(
    run: Path, server: Server, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    assert main(["push", "run", "ada/digits"]) == 0
    capsys.readouterr()
    files = server.commits["ada/digits"][-1]
    damaged = bytearray(files["model.safetensors"])
    damaged[at] ^= 1
    files["model.safetensors"] = bytes(damaged)
    assert "not a readable model file" in refusal(capsys, "sample", "hub:ada/digits", "-n", "2")


def test_a_pickle_is_never_fetched(run: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = (run / "checkpoints" / "last.ckpt").read_bytes()
    server.commits["eve/digits"] = [{"last.ckpt": checkpoint, "pytorch_model.bin": checkpoint}]
    assert "Entry Not Found" in refusal(capsys, "sample", "hub:eve/digits")
    server.commits["eve/digits"] = [{"model.safetensors": checkpoint}]
    assert "not a readable model file" in refusal(capsys, "sample", "hub:eve/digits")


def test_a_checkpoint_alone_can_be_pushed(run: Path, server: Server) -> None:
    (run / "checkpoints" / "last.ckpt").rename("a.ckpt")
    assert main(["push", "a.ckpt", "ada/digits", "--private"]) == 0
    assert "Nothing was measured." in server.commits["ada/digits"][-1]["README.md"].decode()


def test_a_description_cannot_start_a_download(run: Path, server: Server) -> None:
    """The name of a backbone is read when training begins, and at no other time."""
    from lebm.inference import Frozen

    Frozen(backbone="hub:ada/digits")
    assert server.calls == []
