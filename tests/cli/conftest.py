from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lebm.__main__ import main

Run = Callable[..., int]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny recipe in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("LEBM_DEBUG", "LEBM_ALLOW_ENV", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEBM_CACHE", str(tmp_path.parent / "cache"))
    shutil.copy(Path(__file__).parent / "tiny.yaml", "tiny.yaml")
    return Path("tiny.yaml")


@pytest.fixture
def lebm(tiny: Path) -> Run:
    """Runs a command that may use the data module of these tests; returns its exit status."""

    def run(verb: str, *words: object) -> int:
        return main([verb, *map(str, words), "--trust", "tests"])

    return run


@pytest.fixture
def trained(lebm: Run, tiny: Path) -> Path:
    """The folder of a finished run."""
    assert lebm("fit", "-c", tiny) == 0
    return Path("runs/tiny")


@pytest.fixture
def wicked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable module that leaves a mark when it is imported."""
    Path("wicked.py").write_text(
        "open('owned', 'w').close()\nclass Sampler: pass\nclass Callback: pass\ndef function(*a): pass\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return Path("owned")
