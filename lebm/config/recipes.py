"""The recipes of the package: their folder and their names."""

from __future__ import annotations

import difflib
import importlib.util
import itertools
from collections.abc import Iterable
from pathlib import Path

from lebm.errors import UserError

_BLOCKS = "data/"
_OVERLAYS = ("loggers/", "inference/", "prior/")


def folder() -> Path:
    """The folder of the packaged recipes, also in a source tree that is not installed."""
    spec = importlib.util.find_spec("lebm.recipes")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "recipes"


def names() -> dict[str, Path]:
    """The files of all recipes and overlays by name, such as ``latent_mle/mnist``."""
    return {name: path for name, path in _files().items() if not name.startswith(_BLOCKS)}


def experiments() -> dict[str, Path]:
    """The files of the recipes that train a model by themselves: all but the overlays."""
    return {name: path for name, path in names().items() if not name.startswith(_OVERLAYS)}


def blocks() -> dict[str, Path]:
    """The files of all blocks, which recipes include, by name, such as ``data/mnist``."""
    return {name: path for name, path in _files().items() if name.startswith(_BLOCKS)}


def _files() -> dict[str, Path]:
    root = folder()
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return dict(sorted(files.items(), key=lambda item: ("/" in item[0], item[0])))


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'data/mnist'?`` for the most similar known name; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def find(recipe: str) -> Path:
    """The file of a recipe, an overlay or a block, by its path or its name.

    Raises:
        UserError: if there is neither such a file nor such a name.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    files, known = _files(), names()
    name = recipe.removesuffix(".yaml").removesuffix(".yml").removeprefix("recipes/")
    if name in files:
        return files[name]
    if path.is_dir():
        raise UserError(f"{recipe} is a folder, not a recipe; to continue a run: lebm fit --resume {recipe}")
    near = difflib.get_close_matches(name, known, n=1) or [
        other for other in known if other.split("/")[-1] == name.split("/")[-1]
    ]
    hint = f"did you mean {near[0]!r}?" if near else "lebm ls prints the recipes there are"
    raise UserError(f"no recipe {recipe!r}, neither as a file nor by name; {hint}")


def run_name(recipe: str) -> str:
    """The name of a run of a recipe: the recipe's name with dashes, or folder and stem of a user's file."""
    path = find(recipe).resolve()
    for name, known in _files().items():
        if known.resolve() == path:
            return name.replace("/", "-")
    parent = Path(recipe).parent.name
    return path.stem if parent in ("", ".", "..", "recipes") else f"{parent}-{path.stem}"


def title(path: Path) -> str:
    """The first comment line of a recipe."""
    with path.open(encoding="utf-8") as lines:
        return next(
            (line.lstrip("# ").strip() for line in lines if line.startswith("#") and line.strip("# \n")), ""
        )


def is_measured(path: Path) -> bool:
    """Whether the header of a recipe says that it has been run at full length."""
    with path.open(encoding="utf-8") as lines:
        header = itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), lines)
        return any(line.startswith("# Status   run at full length") for line in header)
