"""The rooms of the package: which may import which, read from the source."""

from __future__ import annotations

import ast
import configparser
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "lebm"
FLOORS = (
    {"component", "errors", "lightning_private", "_version"},
    {"extras", "files", "pretrained"},
    {"hub"},
    {"checkpoint"},
    {"samplers"},
    {"models"},
    {"inference", "density_ratio", "data", "metrics", "conditions"},
    {"estimators", "plots"},
    {"evaluation"},
    {"callbacks"},
    {"run"},
    {"config"},
    {"lebm"},  # load, from_recipe
    {"report", "study"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the lowest floor to the highest. An import goes to a lower floor or stays in its room."""

WITHOUT_LIGHTNING = ("samplers", "models", "inference", "density_ratio", "checkpoint", "conditions")
WRITES_LIGHTNING_CHECKPOINTS = {"lebm.checkpoint.writing"}
LONGEST_FILE = 600

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Files of a package by dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Every module that a file imports, in functions and under ``TYPE_CHECKING`` too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


@functools.cache
def graph(package: Path) -> Graph:
    """Imports of every file, those of other packages too."""
    known = modules(package)
    return {name: set(imports(path, known)) for name, path in known.items()}


def room(module: str) -> str:
    """``samplers`` for ``lebm.samplers.base``; ``lebm`` for the package itself."""
    return module.split(".")[1] if module.startswith("lebm.") else module


def upward(edges: Graph) -> list[str]:
    """Imports of a room that is not on a lower floor."""
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    return [
        f"{source} imports {target}"
        for source, targets in edges.items()
        for target in sorted(targets & edges.keys())
        if room(source) != room(target) and floor[room(target)] >= floor[room(source)]
    ]


def circle(edges: Graph) -> list[str]:
    """Files that import each other in a circle; empty if there are none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for target in sorted(edges[name] & edges.keys()):
            if found := visit(target, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in edges if (found := visit(name, []))), [])


def uses_lightning(edges: Graph) -> list[str]:
    """Files of the rooms without Lightning that import it."""
    return [
        source
        for source, targets in edges.items()
        if room(source) in WITHOUT_LIGHTNING
        and source not in WRITES_LIGHTNING_CHECKPOINTS
        and any(target.split(".")[0] in ("lightning", "pytorch_lightning") for target in targets)
    ]


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in modules(PACKAGE)} == set().union(*FLOORS) - {"files"} | (
        {"files"} if (PACKAGE / "files.py").is_file() else set()
    )


def test_imports_go_down() -> None:
    assert upward(graph(PACKAGE)) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(graph(PACKAGE)) == []
    assert circle(graph(PACKAGE.parent / "benchmarks")) == []


def test_networks_and_samplers_need_no_lightning() -> None:
    assert uses_lightning(graph(PACKAGE)) == []


def test_scripts_and_benchmarks_do_without_the_command_line() -> None:
    known = modules(PACKAGE)
    files = [path for folder in ("scripts", "benchmarks") for path in (PACKAGE.parent / folder).glob("*.py")]
    assert files
    users = [path.name for path in files if any(room(name) == "cli" for name in imports(path, known))]
    assert users == []


def removers(package: Path) -> dict[str, set[str]]:
    """The functions that remove files or folders, and the files of the package that call them."""
    found: dict[str, set[str]] = {}
    for name, path in modules(package).items():
        for called in re.findall(r"rmtree|removedirs|unlink|os\.remove", path.read_text(encoding="utf-8")):
            found.setdefault(called, set()).add(name)
    return found


def test_one_function_removes_folders_and_it_spares_weights() -> None:
    """``lebm.files.remove_folder``; single files are removed where they were written."""
    assert removers(PACKAGE) == {
        "rmtree": {"lebm.files"},
        "unlink": {"lebm.files", "lebm.checkpoint.writing", "lebm.run.folder"},
    }


def test_files_can_be_read_in_one_sitting() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(PACKAGE).items()
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def test_the_checks_see_what_they_look_for(tmp_path: Path) -> None:
    """Imports in functions, of types only, by ``import a.b`` and by ``from a import b`` all count."""
    files = {
        "__init__": "",
        "samplers/__init__": "def f():\n    from lebm.cli import main\n",
        "samplers/base": "import lightning.pytorch as L\n",
        "models/__init__": "import lebm.models.prior\n",
        "models/prior": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lebm import models\n",
        "data/__init__": "from lebm.metrics import rows\n",
        "metrics/rows": "from lebm.samplers import base\n",
        "cli/main": "from lebm.samplers.base import Sampler\n",
    }
    for name, text in files.items():
        path = tmp_path / "lebm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    edges = graph(tmp_path / "lebm")
    assert upward(edges) == ["lebm.data imports lebm.metrics.rows", "lebm.samplers imports lebm.cli.main"]
    assert circle({**edges, "lebm.samplers": set()}) == ["lebm.models", "lebm.models.prior", "lebm.models"]
    assert uses_lightning(edges) == ["lebm.samplers.base"]


def test_the_installed_package_has_every_room() -> None:
    settings = configparser.ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg", encoding="utf-8")
    listed = {name for name in settings["options"]["packages"].split() if name != "lebm.recipes"}
    folders = {path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")}
    assert listed == {".".join(folder.parts) for folder in folders if "recipes" not in folder.parts}
