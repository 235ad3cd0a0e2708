"""Classes of the user's own: a file in the working folder, named with --trust."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.cli.test_errors import MODEL, TINY, put, refused

ENERGY = (*MODEL, "prior", "init_args", "energy")
TEXT = """\
from lebm.models import MLPEnergy

class OwnEnergy(MLPEnergy):
    pass

class Plain:
    pass
"""


@pytest.fixture
def own(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe with an energy of a module in the working folder, which is not on Python's path, as with a
    console script.
    """
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setattr(sys, "path", [root, *(folder for folder in sys.path if folder not in ("", root))])
    Path("own_energies.py").write_text(TEXT)
    recipe = copy.deepcopy(TINY)
    put(*ENERGY, "class_path", "own_energies.OwnEnergy")(recipe)
    recipe["trainer"]["max_steps"] = 1
    Path("own.yaml").write_text(yaml.safe_dump(recipe))
    yield Path("own.yaml")
    sys.modules.pop("own_energies", None)


def test_a_module_of_the_working_folder_trains_and_is_loaded(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = list(sys.path)
    assert lebm("fit", "-c", own, "--trust", "own_energies") == 0
    assert lebm("sample", "runs/own", "-n", 2, "--format", "npy", "--trust=own_energies") == 0
    assert sys.path == path  # for this command only
    sys.modules.pop("own_energies")
    Path("own_energies.py").unlink()
    capsys.readouterr()
    assert lebm("sample", "runs/own", "-n", 2, "--format", "npy", "--trust", "own_energies") == 2
    error = capsys.readouterr().err
    assert (
        "own_energies.OwnEnergy is not a class that can be imported: no module own_energies; run lebm in"
        " its folder" in error
    )


def test_a_module_of_the_working_folder_needs_its_name(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, lebm("validate-recipe", own), ("own_energies.OwnEnergy", "add --trust own_energies"))
    assert "own_energies" not in sys.modules


def test_a_missing_module_is_named(lebm: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_energies.py").unlink()
    refused(
        capsys,
        lebm("validate-recipe", own, "--trust", "own_energies"),
        ("no module own_energies; run lebm in its folder",),
    )
