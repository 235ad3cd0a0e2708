"""Model files: what comes back is what was written, and what a stranger changed is refused in one line."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lebm
from lebm import checkpoint
from lebm.__main__ import main
from lebm.checkpoint import model_file, reading
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.component import describe
from lebm.errors import UserError
from lebm.run.provenance import export
from tests.estimators.test_latent_mle import small_model

STORED = sorted((Path(__file__).parents[1] / "checkpoints").glob("*.ckpt"))

Description = dict[str, Any]
Change = Callable[[dict[str, str], dict[str, torch.Tensor]], None]


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


def written(path: Path) -> Path:
    checkpoint.write_model_file(path, small_model(seed=1), {"weights": "plain"})
    return path


def changed(path: Path, change: Change) -> Path:
    """A file with another content and the right checksum: the writer is the attacker."""
    written(path)
    tensors = load_file(path)
    with model_file.open_ordinary(path) as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    change(header, tensors)
    header["sha256"] = model_file._digest(header, tensors)
    save_file(tensors, path, metadata=header)
    return path


def described(edit: Callable[[Description], Any]) -> Change:
    def change(header: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
        description = json.loads(header["description"])
        edit(description["init_args"])
        header["description"] = json.dumps(description)

    return change


def headed(**entries: str) -> Change:
    return lambda header, tensors: header.update(entries)


def generator(**arguments: Any) -> Change:
    return described(
        lambda model: model["likelihood"]["init_args"]["generator"]["init_args"].update(arguments)
    )


def many_channels(model: Description) -> None:
    """A generator of few weights and large pictures."""
    wide = {"latent_dim": 3, "out_shape": [1, 16384, 16384], "channels": [1] * 12, "start": 4}
    path = "lebm.models.ConvGenerator"
    model["likelihood"]["init_args"]["generator"] = {"class_path": path, "init_args": wide}


def transformer(model: Description) -> None:
    """A network that is asked for with memory, in the place of one of lebm."""
    large = {"device": "cpu", "num_encoder_layers": 150}
    proposal = {"class_path": "torch.nn.Transformer", "init_args": large}
    sampler = {"latent_dim": 3, "proposal": proposal}
    path = "lebm.samplers.SamplingImportanceResampling"
    model["prior_sampler"] = {"class_path": path, "init_args": sampler}


def energy(**entry: Any) -> Change:
    return described(lambda model: model["prior"]["init_args"]["energy"].update(entry))


HOSTILE: dict[str, tuple[Change, str]] = {
    "class outside the packages": (energy(class_path="trap.Thing"), "outside the trusted packages"),
    "unknown class": (energy(class_path="lebm.models.NoSuchEnergy"), "is not a class"),
    "class of the wrong kind": (energy(class_path="torch.nn.Sequential", init_args={}), "is no Energy"),
    "function": (energy(class_path="lebm.checkpoint.rebuild.resolve", init_args={}), "is not a class"),
    "network without end": (
        energy(init_args={"latent_dim": 3, "hidden": [90_000, 90_000]}),
        "much larger than the weights",
    ),
    "a hundred thousand layers": (energy(init_args={"latent_dim": 3, "hidden": [1] * 90_000}), "much larger"),
    "large pictures": (described(many_channels), "needs more weights"),
    "network with memory": (described(transformer), "much larger|no |cannot"),
    "huge out_shape": (generator(out_shape=[1, 10**9, 10**9]), "out_shape .* needs more weights"),
    "huge integer": (generator(latent_dim=10**4000), "latent_dim of more than 40 digits: more than"),
    "endless chain": (
        described(lambda model: model["prior_sampler"]["init_args"].update(steps=10**12)),
        "steps 1000000000000: more than 100000",
    ),
    "compiler": (
        described(lambda model: model["prior_sampler"]["init_args"].update(compile=True)),
        "may not start a compiler",
    ),
    "number that is none": (headed(description='{"class_path": NaN}'), "holds NaN"),
    "no JSON": (headed(facts="{"), "not a readable model file"),
    "text in the place of a mapping": (headed(state='"x"'), "is no mapping"),
    "deep nesting": (headed(description="[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "half deep nesting": (headed(description='{"a":' * 900 + "1" + "}" * 900), "nested|class_path"),
    "missing tensor": (lambda header, tensors: tensors.pop(next(iter(tensors))), "do not fit"),
    "further tensor": (lambda header, tensors: tensors.update(more=torch.zeros(3)), "do not fit.*Unexpected"),
    "other shape": (
        lambda header, tensors: tensors.update({name: torch.zeros(7) for name in list(tensors)}),
        "has the shape",
    ),
    "tensor that the state lacks": (headed(state='{"a": {"tensor": "b"}}'), "not a readable model file"),
    "infinity as a number of stages": (
        headed(state='{"prior_sampler._extra_state": {"float": "x"}}'),
        "not a readable model file",
    ),
    "format of the future": (headed(lebm_model="7"), "newer lebm"),
    "format that is no number": (headed(lebm_model="one"), "not a model file of lebm"),
    "header without facts": (lambda header, tensors: header.pop("facts"), "has no facts"),
}


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good file, so that what opening one imports has been imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.py").write_text("open('sprung', 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lebm.load(written(tmp_path / "good.safetensors"))
    return tmp_path


def refusal(path: Path) -> str:
    """The one line with which a file is refused, with little memory and no import."""
    modules = set(sys.modules)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        lebm.load(path)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    assert "\n" not in text
    assert len(text) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kilobytes
    assert {name for name in set(sys.modules) - modules if not name.startswith("lebm.")} == set()
    assert not Path("sprung").exists()
    return text


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused(case: str, clean: Path) -> None:
    change, message = HOSTILE[case]
    text = refusal(changed(clean / "bad.safetensors", change))
    assert re.search(message, text), text


def patched(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(edit(written(path).read_bytes()))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: struct.pack("<Q", 2**40) + data[8:], "header is larger"),
        (lambda data: struct.pack("<Q", 17 << 20) + b" " * (17 << 20) + data, "header is larger"),
        (lambda data: data[:-5], "not a readable model file"),
        (lambda data: data + b"more", "not a readable model file"),
        (lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "checksum is wrong"),
        (lambda data: data.replace(b"LatentMLE", b"LatentMLX"), "checksum is wrong"),
        (lambda data: b"", "not a readable model file"),
        (lambda data: b"PK\x03\x04" * 100, "header is larger"),
    ],
    ids=["claim", "long header", "cut", "appended", "one bit", "description", "empty", "zip"],
)
def test_a_damaged_file_is_refused(clean: Path, edit: Callable[[bytes], bytes], message: str) -> None:
    assert message in refusal(patched(clean / "bad.safetensors", edit))


def test_what_is_no_model_file_is_refused(clean: Path) -> None:
    os.mkfifo(clean / "pipe.safetensors")
    assert "not an ordinary file" in refusal(clean / "pipe.safetensors")
    (clean / "zero.safetensors").symlink_to("/dev/zero")
    assert "not an ordinary file" in refusal(clean / "zero.safetensors")
    save_file({"w": torch.zeros(2)}, clean / "other.safetensors")
    assert "not a model file of lebm" in refusal(clean / "other.safetensors")
    content: dict[str, Any] = {"state_dict": small_model(seed=1).state_dict()}
    small_model(seed=1).on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, clean / "renamed.safetensors")
    assert "header is larger" in refusal(clean / "renamed.safetensors")  # a zip archive is never opened


def test_every_verb_refuses_in_one_line(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(clean / "bad.safetensors", energy(class_path="trap.Thing\x1b]52;c;x"))
    files = sorted(clean.iterdir())
    for verb in ("sample", "score", "reconstruct", "diagnose", "evaluate", "interpolate"):
        words = ["a", "b"] if verb == "interpolate" else []
        assert main([verb, "bad.safetensors", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "bad.safetensors" in error
        assert "\x1b" not in error
    assert sorted(clean.iterdir()) == files


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
    with pytest.raises(UserError, match="averaged weights of its run only"):
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
    assert "NAME.safetensors" in capsys.readouterr().err
    files = sorted(clean.iterdir())

    def broken(*given: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    assert main(["export", source, "model.safetensors", "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("model.safetensors").read_bytes() == before
    assert sorted(clean.iterdir()) == files


def test_a_model_that_could_not_be_opened_is_not_written(tmp_path: Path) -> None:
    model = small_model(seed=1)
    model._init_arguments["prior_sampler"]._init_arguments["steps"] = 10**7
    with pytest.raises(UserError, match="steps 10000000: more than"):
        checkpoint.write_model_file(tmp_path / "model.safetensors", model, {})
    assert not list(tmp_path.iterdir())


def test_verify_says_what_a_file_holds(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(STORED[0], clean / "a.safetensors")
    assert main(["verify", "a.safetensors"]) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["model"] == "lebm.estimators.DualMCMCTeaching"
    assert shown["checksum"] == "the content fits it"
    assert shown["lebm"] == lebm.__version__
    assert len(shown["SHA-256"]) == 64
    assert int(shown["number of weights"].replace(",", "")) == sum(
        value.numel() for value in lebm.load(STORED[0]).state_dict().values()
    )
    model = lebm.load(STORED[0])
    parameters = sum(value.numel() for value in model.parameters())
    assert int(shown["parameters"].split(";")[0].replace(",", "")) == parameters
    assert shown["latent size"] == str(model.latent_dim)
    shape = ", ".join(map(str, model.decode(torch.zeros(1, model.latent_dim)).shape[1:]))
    assert shown["observations"] == f"images of shape ({shape})"
    assert main(["verify", str(STORED[0])]) == 0
    assert main(["verify", str(STORED[1])]) == 0
    assert "none in a checkpoint of format 1" in capsys.readouterr().out
    patched(clean / "bad.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["verify", "bad.safetensors"]) == 2
    assert "its checksum is wrong" in capsys.readouterr().err


def test_results_of_a_model_file_go_beside_it(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "files").mkdir()
    written(clean / "files" / "a.safetensors")
    assert main(["sample", "files/a.safetensors", "-n", "2", "--format", "npy"]) == 0
    assert Path("files/samples.npy").exists()
    assert main(["score", "files/a.safetensors"]) == 2
    assert "name some with --data" in capsys.readouterr().err
    assert main(["fit", "-c", "quickstart", "--ckpt_path", "files/a.safetensors"]) == 2
    assert "no state of training" in capsys.readouterr().err


def test_a_message_names_the_file_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    (tmp_path / "text.safetensors").write_text("no model")
    for file in (pipe, tmp_path / "text.safetensors"):
        with pytest.raises(UserError) as error:
            checkpoint.read(file)
        assert str(error.value).count(str(file)) == 1


def test_an_export_reads_the_checkpoint_once(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    before = reading.open_ordinary
    monkeypatch.setattr(reading, "open_ordinary", lambda path: opened.append(path) or before(path))
    export(STORED[0], clean / "a.safetensors")
    assert opened == [Path(STORED[0])]
