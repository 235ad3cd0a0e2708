"""Small trained models that ship with lebm: ``lebm.load("pretrained/NAME")``, each with a card beside it."""

from __future__ import annotations

import difflib
from pathlib import Path

from lebm.errors import UserError

__all__ = ["PREFIX", "find", "folder", "names"]

PREFIX = "pretrained/"
"""How the name of such a model begins, wherever a run can be named."""


def folder() -> Path:
    """The folder of the models, ``NAME.safetensors``, and of their cards, ``NAME.md``."""
    return Path(__file__).parent


def names() -> dict[str, Path]:
    """The files of all models by name."""
    return {path.stem: path for path in sorted(folder().glob("*.safetensors"))}


def find(name: str) -> Path:
    """The file of a model.

    Args:
        name: the name, with or without ``pretrained/`` before it.

    Raises:
        UserError: if there is no such model, with the names of those there are.
    """
    known, wanted = names(), name.removeprefix(PREFIX)
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {PREFIX}{near[0]}? " if near else ""
    raise UserError(f"{PREFIX}{wanted}: no such model; {hint}this version ships {', '.join(known) or 'none'}")
