"""Weights are data and may come from anybody: a file that asks for more is refused in one line, and neither
``sys.modules`` nor the file system knows of it.
"""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import re
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._utils
from safetensors.torch import load_file, save_file

import lebm
from lebm import checkpoint
from lebm.__main__ import main
from lebm.checkpoint import model_file
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import UserError
from tests.estimators.test_latent_mle import small_model

Content = dict[str, Any]
Write = Callable[[Path], Any]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that leaves a mark when it is imported or called."""
    folder = tmp_path / "packages" / "trap"
    folder.mkdir(parents=True)
    mark = tmp_path / "sprung"
    (folder / "__init__.py").write_text(
        f"open({str(mark)!r}, 'w').close()\ndef call(*a, **k): pass\nclass Thing: pass\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.chdir(tmp_path)
    yield mark
    sys.modules.pop("trap", None)


def base() -> Content:
    model = small_model(seed=1)
    content: Content = {
        "state_dict": dict(model.state_dict()),
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.6",
    }
    model.on_save_checkpoint(content)
    return content


def saved(content: Any) -> Write:
    """A checkpoint with a good checksum, because its writer is the attacker."""
    return lambda path: AtomicCheckpointIO().save_checkpoint(
        content() if callable(content) else content, path
    )


def changed(path: Path, change: Callable[[dict[str, str], dict[str, torch.Tensor]], Any]) -> Path:
    """A model file with other tensors or another header, and a good checksum."""
    checkpoint.write_model_file(path, small_model(seed=1), {"weights": "plain"})
    tensors, content = load_file(path), path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    change(header, tensors)
    header["sha256"] = model_file._digest(header, tensors)
    save_file(tensors, path, metadata=header)
    return path


def described(edit: Callable[[Any], Any], path: Path) -> None:
    """A file, of the kind that its name says, whose description is another one."""
    if path.suffix == ".ckpt":
        content = base()
        content["hyper_parameters"] = edited(content["hyper_parameters"], edit)
        saved(content)(path)
    else:
        changed(
            path,
            lambda header, tensors: header.update(
                description=json.dumps(edited(json.loads(header["description"]), edit))
            ),
        )


def edited(description: Any, edit: Callable[[Any], Any]) -> Any:
    result = edit(description)
    return description if result is None else result


def energy(**entries: Any) -> Callable[[Any], None]:
    return lambda model: model["init_args"]["prior"]["init_args"]["energy"].update(entries)


DESCRIBED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "class outside the packages": (energy(class_path="trap.Thing"), "outside the trusted packages"),
    "class of another package as the model": (
        lambda model: {"class_path": "trap.Thing", "init_args": {}},
        "outside the trusted packages",
    ),
    "function of the system": (
        energy(class_path="os.system", init_args={"command": "touch sprung"}),
        "outside the trusted packages",
    ),
    "function in the place of a class": (
        energy(class_path="lebm.checkpoint.rebuild.resolve", init_args={}),
        "is not a class",
    ),
    "module reached through an allowed one": (
        energy(class_path="lebm.checkpoint.pickle.Unpickler"),
        "is not a class",
    ),
    "class reached through an allowed module": (energy(class_path="lebm.hub.Path"), "is not a class"),
    "submodule that does not exist": (energy(class_path="lebm.models.trap.Thing"), "is not a class"),
    "class of the wrong kind": (
        energy(class_path="torch.nn.Sequential", init_args={}),
        "this energy has no attribute latent_dim",
    ),
    "class of the wrong kind as the model": (
        lambda model: {"class_path": "lebm.data.ImageData", "init_args": {"path": "/etc"}},
        "is not a subclass of LatentModel",
    ),
    "Lightning's _instantiator": (
        lambda model: {"_instantiator": "trap.call", "_class_path": "trap.Thing"},
        "expected a class_path with init_args",
    ),
    "network without end": (
        energy(init_args={"latent_dim": 3, "hidden": [90_000, 90_000]}),
        "do not fit the model it describes .*size mismatch",
    ),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("case", DESCRIBED)
def test_a_description_names_known_classes_only(trap: Path, tmp_path: Path, case: str, suffix: str) -> None:
    edit, message = DESCRIBED[case]
    described(edit, tmp_path / f"hostile{suffix}")
    refused(trap, tmp_path / f"hostile{suffix}", message)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def global_pickle(name: str) -> bytes:
    """A protocol 2 pickle that calls ``module.function('x')``."""
    module, function = name.rsplit(".", 1)
    return b"\x80\x02c" + module.encode() + b"\n" + function.encode() + b"\nX\x01\x00\x00\x00x\x85R."


def archive(pickled: bytes, data: dict[str, bytes] | None = None) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name, content in {
                "data.pkl": pickled,
                "byteorder": b"little",
                "version": b"3\n",
                **(data or {}),
            }.items():
                file.writestr(f"archive/{name}", content)

    return write


class _Storage:
    def __init__(self, numbers: int) -> None:
        self.numbers = numbers


class _Pickler(pickle._Pickler):  # type: ignore[misc]
    def persistent_id(self, value: Any) -> Any:
        return (
            ("storage", torch.FloatStorage, "0", "cpu", value.numbers)
            if isinstance(value, _Storage)
            else None
        )


def tensor_claim(numbers: int, size: int) -> bytes:
    """A pickle whose tensor claims more numbers than its record holds."""
    buffer = io.BytesIO()
    tensor = Call(
        torch._utils._rebuild_tensor_v2, _Storage(numbers), 0, (size,), (1,), False, collections.OrderedDict()
    )
    _Pickler(buffer, 2).dump({"lebm_format": 1, "state_dict": {"w": tensor}})
    return buffer.getvalue()


def seed_of_tensor(model: Any) -> None:
    model["init_args"]["seed"] = torch.zeros(3)


REFUSED = "holds more than tensors and plain values"
CHECKPOINTS: dict[str, tuple[Write, str]] = {
    "pickle that calls os.system": (archive(pickle.dumps(Call(os.system, "touch sprung"), 2)), REFUSED),
    "pickle that calls eval": (archive(global_pickle("builtins.eval")), REFUSED),
    "pickle that names a module not yet imported": (archive(global_pickle("trap.call")), REFUSED),
    "pickle that calls torch.load": (archive(pickle.dumps(Call(torch.load, "/dev/zero"), 2)), REFUSED),
    "whole module pickled": (
        saved(lambda: {"lebm_format": 1, "state_dict": {}, "model": torch.nn.Linear(1, 1)}),
        REFUSED,
    ),
    "old pickle without an archive": (
        lambda path: path.write_bytes(pickle.dumps(Call(os.system, "touch sprung"))),
        REFUSED,
    ),
    "tensor in a description": (
        saved(lambda: base() | {"hyper_parameters": edited(base()["hyper_parameters"], seed_of_tensor)}),
        "a Tensor is not a plain value",
    ),
    "tensor that claims a terabyte": (
        archive(tensor_claim(10**12, 10**12), {"data/0": b"\0" * 40}),
        "not a readable checkpoint",
    ),
    "tensor beyond its record": (
        archive(tensor_claim(10, 10**6), {"data/0": b"\0" * 40}),
        "not a readable checkpoint",
    ),
    "weights that are text": (
        saved(lambda: base() | {"state_dict": dict.fromkeys(base()["state_dict"], "x")}),
        "do not fit the model it describes",
    ),
    "format that is text": (
        lambda path: torch.save(base() | {"lebm_format": "one"}, path),
        "not a checkpoint written by lebm",
    ),
    "format of the future": (lambda path: torch.save(base() | {"lebm_format": 10**6}, path), "newer lebm"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_holds_tensors_and_plain_values_only(trap: Path, tmp_path: Path, case: str) -> None:
    write, message = CHECKPOINTS[case]
    write(tmp_path / "hostile.ckpt")
    refused(trap, tmp_path / "hostile.ckpt", message)


Change = Callable[[dict[str, str], dict[str, torch.Tensor]], Any]
MODEL_FILES: dict[str, tuple[Change, str]] = {
    "facts that are not JSON": (
        lambda header, tensors: header.update(facts="{"),
        "not a readable model file",
    ),
    "deep nesting": (lambda header, tensors: header.update(description="[" * 100_000), "not a readable"),
    "missing tensor": (lambda header, tensors: tensors.pop(next(iter(tensors))), "do not fit.*Missing"),
    "further tensor": (lambda header, tensors: tensors.update(more=torch.zeros(3)), "do not fit.*Unexpected"),
    "tensor that the state lacks": (
        lambda header, tensors: header.update(state='{"a": {"tensor": "b"}}'),
        "not a readable model file",
    ),
    "format of the future": (lambda header, tensors: header.update(lebm_model="7"), "newer lebm"),
    "header without facts": (lambda header, tensors: header.pop("facts"), "no facts"),
}


@pytest.mark.parametrize("case", MODEL_FILES)
def test_a_model_file_fits_its_header(trap: Path, tmp_path: Path, case: str) -> None:
    change, message = MODEL_FILES[case]
    refused(trap, changed(tmp_path / "hostile.safetensors", change), message)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*")}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What loading a good file imports is imported before modules are counted."""
    import encodings.cp437  # noqa: F401, which zipfile uses for foreign names
    import tempfile

    import lebm.data

    with tempfile.TemporaryDirectory() as place:
        for name in ("good.ckpt", "good.safetensors"):
            described(lambda model: None, Path(place) / name)
            assert lebm.load(Path(place) / name).latent_dim == 3


def refused(trap: Path, path: Path, message: str) -> None:
    modules, files = set(sys.modules), tree(path.parent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        lebm.load(path)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    assert text.count(str(path)) == 1, text
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) < 500
    assert set(sys.modules) == modules
    assert tree(path.parent) == files
    assert not trap.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kilobytes


def test_every_command_says_the_same_in_one_line(
    trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described(energy(class_path="trap.Thing"), tmp_path / "hostile.ckpt")
    files = tree(tmp_path)
    for verb in ("sample", "score", "reconstruct", "diagnose", "evaluate", "interpolate"):
        assert main([verb, "hostile.ckpt", *(["a", "b"] if verb == "interpolate" else [])]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "hostile.ckpt" in error
        assert "add --trust trap" in error
    assert not trap.exists()
    assert tree(tmp_path) == files
