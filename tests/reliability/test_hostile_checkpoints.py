"""Checkpoints made to hurt: each is refused in one line, and neither ``sys.modules`` nor the file system
knows of it.
"""

from __future__ import annotations

import collections
import io
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

import lebm
from lebm.__main__ import main
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import UserError
from tests.estimators.test_latent_mle import small_model

Content = dict[str, Any]


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


def with_prior(**energy: Any) -> Content:
    content = base()
    content["hyper_parameters"]["init_args"]["prior"]["init_args"]["energy"] |= energy
    return content


def with_model(key: str, value: Any) -> Content:
    content = base()
    content["hyper_parameters"]["init_args"][key] = value
    return content


def shared_lists() -> Any:
    value: Any = [1]
    for _ in range(30):
        value = [value] * 10
    return value


def saved(content: Any) -> Callable[[Path], None]:
    """An archive as torch writes it, with a good checksum: the writer is the attacker."""
    return lambda path: AtomicCheckpointIO().save_checkpoint(
        content() if callable(content) else content, path
    )


def archive(pickled: bytes, data: dict[str, bytes] | None = None) -> Callable[[Path], None]:
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


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


REFUSED = "holds more than tensors and plain values"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle that calls os.system": (archive(pickle.dumps(Call(os.system, "touch sprung"), 2)), REFUSED),
    "pickle that calls eval": (archive(global_pickle("builtins.eval")), REFUSED),
    "pickle that names a module not yet imported": (archive(global_pickle("trap.call")), REFUSED),
    "pickle that calls torch.load": (archive(pickle.dumps(Call(torch.load, "/dev/zero"), 2)), REFUSED),
    "whole module pickled": (
        saved(lambda: {"lebm_format": 1, "state_dict": {}, "model": torch.nn.Linear(1, 1)}),
        REFUSED,
    ),
    "old pickle without an archive": (
        lambda path: path.write_bytes(pickle.dumps(Call(os.system, "touch sprung"))) and None,
        REFUSED,
    ),
    "Lightning's _instantiator": (
        saved(
            lambda: base() | {"hyper_parameters": {"_instantiator": "trap.call", "_class_path": "trap.Thing"}}
        ),
        "expected a class_path with init_args",
    ),
    "class outside the packages": (
        saved(lambda: with_prior(class_path="trap.Thing")),
        "outside the trusted packages",
    ),
    "class of another package as the model": (
        saved(lambda: base() | {"hyper_parameters": {"class_path": "trap.Thing", "init_args": {}}}),
        "outside the trusted packages",
    ),
    "function in the place of a class": (
        saved(lambda: with_prior(class_path="lebm.checkpoint.rebuild.resolve", init_args={})),
        "is not a class",
    ),
    "module reached through an allowed one": (
        saved(lambda: with_prior(class_path="lebm.checkpoint.pickle.Unpickler")),
        "is not a class",
    ),
    "submodule that does not exist": (
        saved(lambda: with_prior(class_path="lebm.models.trap.Thing")),
        "is not a class",
    ),
    "class of the wrong kind": (
        saved(lambda: with_prior(class_path="torch.nn.Sequential", init_args={})),
        "is no Energy",
    ),
    "command-line class as the model": (
        saved(
            lambda: (
                base()
                | {"hyper_parameters": {"class_path": "lebm.data.ImageData", "init_args": {"path": "/etc"}}}
            )
        ),
        "is no LatentEstimator",
    ),
    "network without end": (
        saved(lambda: with_prior(init_args={"latent_dim": 3, "hidden": [10**9, 10**9]})),
        "much larger than the weights it holds",
    ),
    "a hundred thousand layers": (
        saved(lambda: with_prior(init_args={"latent_dim": 3, "hidden": [1] * 90_000})),
        "much larger",
    ),
    "lists that hold each other": (
        saved(lambda: with_prior(init_args={"latent_dim": 3, "hidden": shared_lists()})),
        "more than 100000 values",
    ),
    "tensor in a description": (
        saved(lambda: with_model("seed", torch.zeros(3))),
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
    "record shorter than its tensor": (
        archive(tensor_claim(1000, 1000), {"data/0": b"\0" * 40}),
        "not a readable checkpoint",
    ),
    "weights that are no mapping": (
        saved(lambda: base() | {"state_dict": [1, 2]}),
        "not a checkpoint written by lebm",
    ),
    "weights that are text": (
        saved(lambda: base() | {"state_dict": dict.fromkeys(base()["state_dict"], "x")}),
        "do not fit the model it describes",
    ),
    "format that is no number": (
        lambda path: torch.save(base() | {"lebm_format": "one"}, path),
        "not a checkpoint written by lebm",
    ),
    "format of the future": (lambda path: torch.save(base() | {"lebm_format": 10**6}, path), "newer lebm"),
    "pipe": (pipe, "not an ordinary file"),
    "link to a device": (device, "not an ordinary file"),
}


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*")}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What loading a good checkpoint imports is imported before modules are counted."""
    import encodings.cp437  # noqa: F401, which zipfile uses for foreign names
    import tempfile

    import lebm.data

    with tempfile.TemporaryDirectory() as place:
        saved(base)(Path(place) / "good.ckpt")
        lebm.load(Path(place) / "good.ckpt")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_checkpoint(trap: Path, tmp_path: Path, case: str) -> None:
    write, message = HOSTILE[case]
    path = tmp_path / "hostile.ckpt"
    write(path)
    modules, files = set(sys.modules), tree(tmp_path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        lebm.load(path)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    assert re.search(message, text), text
    assert "\n" not in text
    assert len(text) < 400
    assert set(sys.modules) == modules
    assert tree(tmp_path) == files
    assert not trap.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kilobytes


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(HOSTILE) >= 15


def test_the_command_says_the_same_in_one_line(
    trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(lambda: with_prior(class_path="trap.Thing"))(tmp_path / "hostile.ckpt")
    for verb in ("sample", "score", "reconstruct"):
        assert main([verb, "hostile.ckpt"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "hostile.ckpt" in error
        assert "add --trust trap" in error
    assert not trap.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.ckpt", "packages"]
