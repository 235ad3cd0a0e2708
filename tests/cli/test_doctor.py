"""``lebm doctor``."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.cli import doctor

ROOT = Path(__file__).resolve().parents[2]


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {rest[:16].strip(): (level, rest[16:].strip()) for level, rest in lines[:-1]}


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    found = report(capsys)
    assert {
        "python",
        "torch",
        "lightning",
        "torch pair",
        "cpu",
        "disk here",
        "wandb login",
        "FID weights",
    } <= set(found)
    assert not [name for name, (level, _) in found.items() if level == "broken"]


def test_reports_even_where_torch_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # makes every import of torch fail
        "from lebm.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken  torch_pair" in done.stdout
    assert "disk here" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("versions", "level", "text"),
    [
        ({"lightning": "2.6.5"}, "broken", "not within <3,>=2.6.6"),
        ({"torch": "2.5.1+cu121"}, "broken", "not within >=2.6"),
        ({"torch": "2.10.0+cu126"}, "ok", "2.10.0"),
        ({"wandb": "0.19"}, "note", "not within >=0.25"),
        ({"omegaconf": None}, "broken", "pip install omegaconf"),
    ],
)
def test_packages(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], level: str, text: str
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, real(name))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {name: (grade, what) for grade, name, what in doctor._packages()}
    (name,) = versions
    assert found[name][0] == level
    assert text in found[name][1]


def test_packages_and_their_floors_are_those_that_lebm_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.6", "filelock", "jsonargparse[signatures]<5,>=4.53", 'pytest>=8; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert [name for _, name, _ in doctor._packages()] == ["torch", "filelock", "jsonargparse"]
    monkeypatch.undo()
    found = {name for _, name, _ in doctor._packages()}
    assert {"torch", "torchvision", "numpy", "scipy", "tokenizers", "wandb"} <= found


def test_metric_weights_are_looked_for_where_the_libraries_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert [level for level, _, _ in doctor._inception()] == ["note"]
    target = tmp_path / "hub" / "checkpoints" / doctor._INCEPTION
    target.parent.mkdir(parents=True)
    target.touch()
    assert list(doctor._inception()) == [("ok", "FID weights", f"{target}: there")]
    import torch

    assert Path(torch.hub.get_dir()) == tmp_path / "hub"


def test_unwritable_folder_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "access", lambda *_: False)
    assert {level for level, _, _ in doctor._disk()} == {"broken"}
