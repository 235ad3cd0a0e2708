"""What a recipe includes: blocks, which are sections that several recipes share, or a whole other recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lebm.config import checks, recipes
from lebm.errors import UserError

__all__ = ["included", "merged"]


def included(path: Path, content: dict[str, Any], above: tuple[Path, ...] = ()) -> list[Path]:
    """The files that a recipe includes, in the order in which they are read.

    They are read before the recipe, so the values of the recipe replace theirs. A name such as ``data/mnist``
    or ``latent_mle/mnist`` is a block or a recipe of the package. A name that ends in ``.yaml`` is a file, as
    seen from the folder of the recipe.

    Args:
        path: the recipe.
        content: the recipe as plain data.
        above: the recipes that include this one.

    Raises:
        UserError: for an ``include`` that is not a name or a list of names, that names nothing, or that
            includes itself.
    """
    names = content.get("include") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: include: expected the name of a block or a list of names, not {names!r}")
    found: list[Path] = []
    for name in names:
        file = _file(path, name)
        if file.resolve() in (*above, path.resolve()):
            raise UserError(f"{path}: include: {name} includes itself")
        found += [*included(file, checks.load_recipe(file), (*above, path.resolve())), file]
    return found


def _file(path: Path, name: str) -> Path:
    if not name.endswith((".yaml", ".yml")):
        known = {**recipes.blocks(), **recipes.names()}
        if name not in known:
            hint = recipes.nearest(name, known) or f"; the blocks are {', '.join(recipes.blocks())}"
            raise UserError(f"{path}: include: there is no block {name!r}{hint}")
        return known[name]
    file = path.parent / name
    if not file.is_file():
        raise UserError(f"{path}: include: there is no file {file}")
    return file


def merged(path: Path) -> dict[str, Any]:
    """A recipe as plain data, with what it includes."""
    content: dict[str, Any] = {}
    for file in (*included(path, checks.load_recipe(path)), path):
        content = _over(content, checks.load_recipe(file))
    content.pop("include", None)
    return content


def _over(old: Any, new: Any) -> Any:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {**old, **{key: _over(old.get(key), value) for key, value in new.items()}}
