"""Small trained models of the package: ``lebm.load("pretrained/NAME")``, each with a card."""

import difflib
from pathlib import Path

from lebm.errors import UserError

__all__ = ["PREFIX", "find", "folder", "names"]

PREFIX = "pretrained/"
"""Prefix of a packaged model, wherever a run can be named."""


def folder() -> Path:
    """Return the folder of the models, ``NAME.safetensors``, and of their cards, ``NAME.md``."""
    return Path(__file__).parent


def names() -> dict[str, Path]:
    """Return the files of all models by name."""
    return {path.stem: path for path in sorted(folder().glob("*.safetensors"))}


def find(name: str) -> Path:
    """Return the file of a model.

    Args:
        name: the name, with or without ``pretrained/`` before it.

    Raises:
        UserError: if the model does not exist, with the known names.
    """
    known, wanted = names(), name.removeprefix(PREFIX)
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {PREFIX}{near[0]}? " if near else ""
    raise UserError(f"{PREFIX}{wanted}: no such model; {hint}this version ships {', '.join(known) or 'none'}")
