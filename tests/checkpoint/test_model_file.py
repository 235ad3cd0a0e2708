"""Model files: what comes back is what was written."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lebm
from lebm import checkpoint
from lebm.__main__ import main
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.component import describe
from lebm.errors import UserError
from lebm.run.provenance import export
from tests.estimators.test_latent_mle import small_model

STORED = sorted((Path(__file__).parents[1] / "checkpoints").glob("*.ckpt"))


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path) -> Path:
    checkpoint.write_model_file(path, small_model(seed=1), {"weights": "plain"})
    return path


def patched(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(edit(written(path).read_bytes()))
    return path


def draws(model: Any) -> list[torch.Tensor]:
    z = torch.linspace(-1, 1, 2 * model.latent_dim).reshape(2, model.latent_dim)
    x = model.decode(z)
    noise = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return [model.sample(3, generator=noise[0]), model.anomaly_score(x, generator=noise[1]), x]


@pytest.mark.parametrize("stored", STORED, ids=lambda file: file.stem)
def test_a_model_file_answers_bit_for_bit_as_its_checkpoint(stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    export(stored, file)
    before, after = lebm.load(stored), lebm.load(file)
    assert type(after) is type(before)
    assert describe(after) == describe(before)
    assert after.loaded_weights == before.loaded_weights
    assert not after.training
    for one, other in zip(draws(before), draws(after), strict=True):
        assert torch.equal(one, other)
    words, others = before.state_dict(), after.state_dict()
    assert words.keys() == others.keys()
    for name, value in words.items():
        same = torch.equal(value, others[name]) if isinstance(value, torch.Tensor) else value == others[name]
        assert same, name
    again = tmp_path / "again.safetensors"
    export(file, again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("stored", STORED, ids=lambda file: file.stem)
def test_half_precision_comes_back_in_the_types_of_the_model(stored: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    export(stored, whole)
    export(stored, half, dtype="float16")
    assert half.stat().st_size < whole.stat().st_size
    before, after = lebm.load(stored).state_dict(), lebm.load(half).state_dict()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert after[name].dtype == value.dtype
            torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(*map(draws, map(lebm.load, [half] * 2))))


def test_what_half_precision_cannot_hold_stays_single(tmp_path: Path) -> None:
    model = small_model(seed=1)
    first = next(model.parameters())
    first.data.view(-1)[0] = 1e6
    checkpoint.write_model_file(tmp_path / "a.safetensors", model, {}, "float16")
    assert torch.equal(next(lebm.load(tmp_path / "a.safetensors").parameters()), first)


def test_infinity_and_tensors_in_plain_state_come_back(tmp_path: Path) -> None:
    class Holder(torch.nn.Module):
        def get_extra_state(self) -> Any:
            return {"best": float("inf"), "rows": [torch.arange(3), float("-inf"), None], "word": "ü\n"}

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    model = small_model(seed=1)
    model.holder = Holder()
    checkpoint.write_model_file(tmp_path / "a.safetensors", model, {})
    state = checkpoint.read(tmp_path / "a.safetensors")["state_dict"]["holder._extra_state"]
    assert torch.equal(state["rows"].pop(0), torch.arange(3))
    assert state == {"best": float("inf"), "rows": [float("-inf"), None], "word": "ü\n"}


def test_averaged_weights_are_exported_as_they_are_used(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "state_dict": small_model(seed=1).state_dict(),
        "current_model_state": small_model(seed=2).state_dict(),
    }
    small_model(seed=1).on_save_checkpoint(content)
    run = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, run)
    for weights, kind in (("ema", "averaged"), ("raw", "raw")):
        export(run, tmp_path / f"{weights}.safetensors", weights=weights)
        before, after = lebm.load(run, weights=weights), lebm.load(tmp_path / f"{weights}.safetensors")
        assert after.loaded_weights == before.loaded_weights == kind
        assert torch.equal(next(after.parameters()), next(before.parameters()))
    with pytest.raises(UserError, match="holds only averaged weights"):
        lebm.load(tmp_path / "ema.safetensors", weights="raw")
    assert lebm.load(tmp_path / "raw.safetensors", weights="raw").loaded_weights == "raw"


def test_export_writes_whole_files_and_replaces_none(
    clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(STORED[0])
    assert main(["export", source, "model.safetensors"]) == 0
    assert "SHA-256" in capsys.readouterr().out
    before = Path("model.safetensors").read_bytes()
    assert main(["export", source, "model.safetensors"]) == 2
    assert "add --force" in capsys.readouterr().err
    assert main(["export", source, "model.bin"]) == 2
    assert "ends with .safetensors" in capsys.readouterr().err
    files = sorted(clean.iterdir())

    def broken(*given: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    assert main(["export", source, "model.safetensors", "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("model.safetensors").read_bytes() == before
    assert sorted(clean.iterdir()) == files


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: struct.pack("<Q", 2**40) + data[8:], "not a readable model file"),
        (lambda data: data[:-5], "not a readable model file"),
        (lambda data: data + b"more", "not a readable model file"),
        (lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "checksum is wrong"),
        (lambda data: data.replace(b"LatentMLE", b"LatentMLX"), "checksum is wrong"),
        (lambda data: b"", "not a readable model file"),
        (lambda data: b"PK\x03\x04" * 100, "not a readable model file"),
    ],
    ids=["claim", "cut", "appended", "one bit", "description", "empty", "zip"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, edit: Callable[[bytes], bytes], message: str) -> None:
    file = patched(tmp_path / "bad.safetensors", edit)
    with pytest.raises(UserError, match=message) as caught:
        lebm.load(file)
    assert str(caught.value).count(str(file)) == 1
    assert "\n" not in str(caught.value)


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not a model file of lebm"):
        lebm.load(tmp_path / "other.safetensors")


def test_the_weights_of_an_open_model_do_not_change_with_its_file(tmp_path: Path) -> None:
    model = lebm.load(written(tmp_path / "a.safetensors"))
    before = [value.clone() for value in model.parameters()]
    with open(tmp_path / "a.safetensors", "r+b") as file:
        file.write(b"\0" * (tmp_path / "a.safetensors").stat().st_size)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_compiled_part_is_written_under_its_own_names(tmp_path: Path) -> None:
    plain, wrapped = small_model(seed=1), small_model(seed=1)
    wrapped.likelihood.generator = torch.compile(wrapped.likelihood.generator)
    for model, name in ((plain, "plain"), (wrapped, "wrapped")):
        checkpoint.write_model_file(tmp_path / f"{name}.safetensors", model, {})
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "wrapped.safetensors").read_bytes()


def test_a_file_that_was_changed_on_its_way_is_refused(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever opens a download that lost a byte."""
    export(STORED[0], clean / "a.safetensors")
    patched(clean / "bad.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["sample", "bad.safetensors", "-n", "2"]) == 2
    assert "its checksum is wrong" in capsys.readouterr().err


def test_results_of_a_model_file_go_beside_it(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "files").mkdir()
    written(clean / "files" / "a.safetensors")
    assert main(["sample", "files/a.safetensors", "-n", "2", "--format", "npy"]) == 0
    assert Path("files/samples.npy").exists()
    assert main(["score", "files/a.safetensors"]) == 2
    assert "name some with --data" in capsys.readouterr().err
    assert main(["fit", "-c", "quickstart", "--ckpt_path", "files/a.safetensors"]) == 2
    assert "no training state" in capsys.readouterr().err


def test_an_export_reads_the_checkpoint_once(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    before = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **how: opened.append(file) or before(file, **how))
    export(STORED[0], clean / "a.safetensors")
    assert len(opened) == 1
