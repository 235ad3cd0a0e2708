"""The trained models that ship with lebm, and ``lebm export --card``, which writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import lebm
from lebm import checkpoint, pretrained
from lebm.__main__ import main
from lebm.errors import UserError
from lebm.run.provenance import sha256

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 9_000_000
"""Bytes of all models together."""


def ship(run: Path, name: str, *more: str) -> Path:
    """Run the command of docs/sharing.md, and return the model file."""
    file = pretrained.folder() / f"{name}.safetensors"
    words = ["--dtype", "float16", "--card", f"{pretrained.PREFIX}{name}", "--license", "apache-2.0"]
    assert main(["export", str(run), str(file), *words, *more]) == 0
    return file


def problems(folder: Path) -> list[str]:
    """What is wrong with a folder of models and cards."""
    files, cards = (sorted(folder.glob(f"[!.]*.{ending}")) for ending in ("safetensors", "md"))
    found = [
        f"{card.name}: a card without a model"
        for card in cards
        if card.with_suffix(".safetensors") not in files
    ]
    if sum(file.stat().st_size for file in files) > LIMIT:
        found.append(f"more than {LIMIT} bytes")
    for file in files:
        card = file.with_suffix(".md")
        if not card.is_file():
            found.append(f"{file.name}: no card")
            continue
        text = card.read_text(encoding="utf-8")
        if f"SHA-256 of the file | `{sha256(file)}`" not in text:
            found.append(f"{file.name}: the digest in its card is of another file")
        for part in (
            "| recipe |",
            "| command |",
            "| licence of the data |",
            "## Values",
            "95% interval",
            "## Not for",
        ):
            if part not in text:
                found.append(f"{card.name}: no {part}")
        if re.search(r"[\s`(]/(home|root|work|tmp|mnt|data)/", text):
            found.append(f"{card.name}: a path of one machine")
        try:
            one, other = (
                lebm.load(file).sample(2, steps=3, generator=torch.Generator().manual_seed(0))
                for _ in range(2)
            )
        except UserError as error:
            found.append(str(error))
            continue
        if not torch.equal(one, other):
            found.append(f"{file.name}: two openings draw different samples")
        if checkpoint.read(file)["facts"]["dtype"] != "float16":
            found.append(f"{file.name}: not in half precision")
    return found


def test_every_shipped_model_is_whole_and_has_its_card() -> None:
    assert problems(pretrained.folder()) == []


def test_the_installed_package_takes_them_along() -> None:
    assert "lebm.pretrained = *.safetensors, *.md" in (REPOSITORY / "setup.cfg").read_text()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the package's own."""
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path / "shelf")
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def test_a_run_is_shipped_with_its_card(run: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ship(run, "latent_mle-mnist")
    assert sorted(path.name for path in shelf.iterdir()) == [
        "latent_mle-mnist.md",
        "latent_mle-mnist.safetensors",
    ]
    assert problems(shelf) == []
    assert main(["pretrained"]) == 0
    assert re.search(
        r"^pretrained/latent_mle-mnist  0.0\d MB  LatentMLE, .*MNIST", capsys.readouterr().out, re.M
    )
    assert main(["sample", "pretrained/latent_mle-mnist", "-n", "4", "--format", "npy"]) == 0
    assert Path("samples.npy").exists()
    assert sorted(shelf.iterdir()) == [file.with_suffix(".md"), file]
    # The working folder's own recipe has nothing to do with the name of a model.
    Path("config.yaml").write_text("data: {class_path: ImageData, init_args: {path: embedded:mnist}}\n")
    for verb in ("reconstruct", "score"):
        assert main([verb, "pretrained/latent_mle-mnist"]) == 2
        assert "name some with --data" in capsys.readouterr().err
    model = lebm.load("pretrained/latent_mle-mnist", map_location="cpu")
    half = next(lebm.load(run).parameters()).half().float()
    assert torch.equal(next(model.parameters()), half)


def test_the_card_says_what_was_trained_and_measured(run: Path, shelf: Path) -> None:
    text = ship(run, "a").with_suffix(".md").read_text()
    for part in (
        "`latent_mle/mnist.yaml`",
        "`lebm fit -c latent_mle/mnist --data.init_args.path .../mnist`",
        "7,200 train, 1,000 test rows; label 4 is held out of training",
        "Creative Commons Attribution-ShareAlike 3.0",
        "| image | `reconstruction_mse` | 0.125 | 0.1 to 0.15 | 39 | test |",
        "| chains | `split_rhat/prior` | 1.01 | none | 32 | chains |",
        "rounded to half precision",
        "1.3 CPU minutes (1.5 of wall time) on a processor",
        "lebm 0.0.9",
        "Command: `lebm evaluate .../run`.",
    ):
        assert part in text, part
    assert "/home/ada" not in text
    assert "auroc/prior" not in text  # rankings by the method's own score only
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["datasets"] == ["ylecun/mnist"]
    results = ModelCard(text).data.eval_results  # the Hub's own reader
    assert {(result.metric_type, result.metric_value, result.dataset_split) for result in results} == {
        ("reconstruction_mse", 0.125, "test"),
        ("auroc/anomaly_score", 0.75, "lebm"),
    }
    assert {result.metric_args["n"] for result in results} == {39, 60}


def edited(run: Path, name: str, **entries: Any) -> None:
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | entries))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda run: edited(run, "evaluation.json", checkpoint_sha256="0" * 64),
            "another checkpoint of the run",
        ),
        (lambda run: edited(run, "evaluation.json", loaded_weights="raw"), "measured with the raw weights"),
        (lambda run: edited(run, "evaluation.json", lebm_evaluation=1), "run lebm evaluate again"),
    ],
    ids=["other checkpoint", "other weights", "other format"],
)
def test_what_would_make_the_card_wrong_is_rejected(
    run: Path, tmp_path: Path, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    before = sorted(Path().iterdir())
    assert main(["export", str(run), "a.safetensors", "--card", "a"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before
    Path("a.safetensors").write_text("mine")
    assert main(["export", str(run), "a.safetensors", "--card", "a", "--force"]) == 2
    assert Path("a.safetensors").read_text() == "mine"


def test_the_card_of_an_interrupted_run_without_values_says_so(run: Path, shelf: Path) -> None:
    edited(run, "summary.json", status="interrupted")
    (run / "evaluation.json").unlink()
    text = ship(run, "a").with_suffix(".md").read_text()
    assert "| training | interrupted, not finished |" in text
    assert "Nothing was measured." in text
    assert problems(shelf) == ["a.md: no 95% interval"]


def test_a_card_is_replaced_only_by_force(run: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / "a.md").write_text("mine")
    words = ["export", str(run), str(shelf / "a.safetensors")]
    assert main([*words, "--card", "a"]) == 2
    assert "a.md exists; choose another name or add --force" in capsys.readouterr().err
    assert [path.name for path in shelf.iterdir()] == ["a.md"]
    assert main(words) == 0  # without a card
    assert (shelf / "a.md").read_text() == "mine"
    ship(run, "a", "--force")
    assert problems(shelf) == []


def test_the_check_of_the_folder_finds_what_is_wrong(run: Path, shelf: Path) -> None:
    file = ship(run, "a")
    card, model = file.with_suffix(".md").read_text(), file.read_bytes()
    file.with_suffix(".md").write_text(card.replace(sha256(file), "0" * 64))
    assert problems(shelf) == ["a.safetensors: the digest in its card is of another file"]
    file.with_suffix(".md").write_text(card.replace("## Not for", "## For"))
    assert problems(shelf) == ["a.md: no ## Not for"]
    file.write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    assert any("checksum is wrong" in problem for problem in problems(shelf))
    file.unlink()
    assert problems(shelf) == ["a.md: a card without a model"]


def test_an_unknown_name_lists_the_known_ones(
    run: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrained"]) == 0
    assert capsys.readouterr().out == ""
    ship(run, "latent_mle-mnist")
    for words in (["sample"], ["evaluate"]):
        assert main([*words, "pretrained/latent_mle-mnits"]) == 2
        error = capsys.readouterr().err
        assert "did you mean pretrained/latent_mle-mnist?" in error
        assert "this version ships latent_mle-mnist" in error
    with pytest.raises(UserError, match="this version ships latent_mle-mnist"):
        lebm.load("pretrained/digits")


def test_a_folder_of_that_name_comes_first(run: Path, shelf: Path) -> None:
    ship(run, "a")
    Path("pretrained").mkdir()
    run.rename("pretrained/a")
    assert checkpoint.find_checkpoint("pretrained/a") == Path("pretrained/a/checkpoints/last.ckpt")
