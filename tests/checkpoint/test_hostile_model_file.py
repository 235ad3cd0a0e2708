"""Model files that a stranger changed or that are damaged: each is refused in one line."""

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
from lebm.checkpoint import model_file
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import UserError
from tests.estimators.test_latent_mle import small_model

Description = dict[str, Any]
Change = Callable[[dict[str, str], dict[str, torch.Tensor]], None]


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
