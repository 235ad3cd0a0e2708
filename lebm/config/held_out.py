"""A held-out class that a recipe names by a number, and data for which that number was not written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lebm.config import checks
from lebm.config.request import Request
from lebm.data.images import ImageData
from lebm.data.module import SplitData
from lebm.errors import UserError

__all__ = ["held_out_notes"]

_FLAG = re.compile(r"--data(?:\.init_args)?\.(path|held_out_label)")


def held_out_notes(request: Request, data: SplitData) -> list[str]:
    """Check a number that a recipe holds out against data that replaced those of the recipe.

    Args:
        request: the words and files that were given.
        data: the data module, after ``setup``.

    Returns:
        A sentence for classes without names, which cannot be checked; otherwise nothing.

    Raises:
        UserError: if the class of this number has another name than the number.
    """
    if not isinstance(data, ImageData) or data.held_out_label is None:
        return []
    written_for = _written_for(request)
    if written_for is None or written_for == data.path:
        return []
    label = data.held_out_label
    name = data.label_names.get(label)
    if name is None:
        return [
            f"held out: the number {label} was written for {written_for}; the classes of {data.path} have no"
            " names, so nobody has checked what it means there"
        ]
    if name == str(label):
        return []
    raise UserError(
        f"held_out_label {label} was written for {written_for}, and class {label} of {data.path} is {name!r};"
        f" name the class to hold out (--data.init_args.held_out_label {name!r}), or train on all classes"
        " (--data.init_args.held_out_label null)"
    )


def _written_for(request: Request) -> str | None:
    """The path of the data that the held-out number of a recipe was written for; ``None`` if a flag gives it,
    a name does, or no path stands with it.
    """
    path: str | None = None
    found: str | None = None
    words = list(request.argv)
    if request.run is not None:
        words = ["-c", str(request.run / "config.yaml"), *words]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "-c":
            arguments = _arguments(Path(after))
            path = arguments.get("path", path)
            if "held_out_label" in arguments:
                found = path if isinstance(arguments["held_out_label"], int) else None
        elif flag := _FLAG.match(word):
            if flag[1] == "held_out_label":
                return None
            path = word.partition("=")[2] or after
    return found


def _arguments(file: Path) -> dict[str, Any]:
    section = checks.load_recipe(file).get("data")
    arguments = section.get("init_args") if isinstance(section, dict) else None
    return arguments if isinstance(arguments, dict) else {}
