"""Packages that only some tasks need, and the line that names a missing one.

``pip install lebm`` brings models, samplers and methods. An extra adds the packages of a task.
"""

from __future__ import annotations

import importlib.util

from lebm.errors import UserError

__all__ = ["EXTRAS", "MissingExtraError", "missing", "need"]

EXTRAS = {
    "datasets": "train",
    "diffusers": "diffusers",
    "tensorboard": "train",
    "torch_fidelity": "metrics",
    "wandb": "wandb",
}
"""The extra that brings each package, by the name under which the package is imported."""


class MissingExtraError(UserError, ImportError):
    """A package of an extra is not installed."""


def missing(package: str, task: str) -> str:
    """The line that says how to install a package; empty if it can be found.

    Args:
        package: a key of :data:`EXTRAS`.
        task: what needs it, as the beginning of the line.
    """
    if importlib.util.find_spec(package) is not None:
        return ""
    return f'{task} needs {package}, which is not installed: pip install "lebm[{EXTRAS[package]}]"'


def need(package: str, task: str) -> None:
    """Refuse to go on without a package of an extra.

    Raises:
        MissingExtraError: with the line of :func:`missing`.
    """
    if line := missing(package, task):
        raise MissingExtraError(line)
