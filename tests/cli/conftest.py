from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lebm.__main__ import main
from tests.conftest import tiny_recipe

Run = Callable[..., int]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny recipe in an empty working folder."""
    return tiny_recipe(tmp_path, monkeypatch)


@pytest.fixture
def lebm(tiny: Path) -> Run:
    """Runs a command that may use the data module of these tests; returns its exit status."""

    def run(verb: str, *words: object) -> int:
        return main([verb, *map(str, words), "--trust", "tests"])

    return run


@pytest.fixture
def trained(tiny: Path, finished_run: Path) -> Path:
    """The folder of a finished run: a copy of one that all tests of the session share."""
    return Path(shutil.copytree(finished_run, "runs/tiny", symlinks=True))


@pytest.fixture
def pictures(tiny: Path) -> Path:
    """An image folder of two classes with a training and a test split."""
    noise = np.random.default_rng(0)
    for split, label in (("train", 0), ("train", 1), ("test", 0), ("test", 1)):
        folder = Path("pictures") / split / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(noise.integers(0, 255, (5, 5), dtype=np.uint8)).save(folder / f"{number}.png")
    return Path("pictures")


@pytest.fixture
def wicked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable module that leaves a mark when it is imported."""
    Path("wicked.py").write_text(
        "open('owned', 'w').close()\nclass Sampler: pass\nclass Callback: pass\ndef function(*a): pass\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return Path("owned")
