"""A held-out class that a recipe gives by its number, and data for which that number was not written."""

from __future__ import annotations

import re
from typing import Any

from lebm.config import checks
from lebm.config.request import Request
from lebm.data.sets import HELD_OUT, by_number
from lebm.data.sources import is_own

__all__ = ["without_foreign_numbers"]


def without_foreign_numbers(request: Request, arguments: dict[str, Any]) -> list[str]:
    """Take out of ``arguments`` the classes that a recipe holds out by number, if other data are named.

    Args:
        request: the words and files that were given.
        arguments: ``init_args`` of the data, parsed; changed in place.

    Returns:
        A sentence for each argument that was taken out.
    """
    path: Any = None
    written_for: dict[str, Any] = {}
    for file in request.files:
        section = checks.load_recipe(file).get("data")
        given = (section.get("init_args") if isinstance(section, dict) else None) or {}
        path = given.get("path", path)
        written_for |= {name: path for name in HELD_OUT if name in given}
    notes = []
    for name, its_path in written_for.items():
        label, typed = arguments.get(name), re.compile(rf"--data\b.*\b{name}\b")
        if its_path is None or is_own(arguments.get("path"), its_path) or not by_number(label):
            continue
        if any(map(typed.match, request.argv)):
            continue
        arguments[name] = None
        notes.append(
            f"{name} {label} is a number of {its_path} and was left out for {arguments['path']}: add"
            f" --data.init_args.{name} NAME to hold out a class"
        )
    return notes
