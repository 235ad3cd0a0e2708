"""Optional packages and the extras that install them.

``pip install lebm`` brings models, samplers and methods. An extra adds the packages of a task.
"""

import importlib.util

from lebm.errors import UserError

EXTRAS = {
    "datasets": "train",
    "diffusers": "diffusers",
    "tensorboard": "train",
    "torch_fidelity": "metrics",
    "wandb": "wandb",
}
"""The extra that installs each package, by import name."""


class MissingExtraError(UserError, ImportError):
    """An error for a package of an extra that is not installed."""


def missing(package: str, task: str) -> str:
    """Return the instruction to install a package; empty if it is installed.

    Args:
        package: a key of :data:`EXTRAS`.
        task: the task that needs it, as the beginning of the line.
    """
    if importlib.util.find_spec(package) is not None:
        return ""
    return f'{task} needs {package}, which is not installed: pip install "lebm[{EXTRAS[package]}]"'


def need(package: str, task: str) -> None:
    """Raise an error if a package of an extra is missing.

    Raises:
        MissingExtraError: with the line of :func:`missing`.
    """
    if line := missing(package, task):
        raise MissingExtraError(line)
