"""Copying the networks of a model that was trained before."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lebm import checkpoint
from lebm.errors import UserError

__all__ = ["copy_backbone"]


def copy_backbone(source: str, parts: Mapping[str, nn.Module]) -> None:
    """Copy weights from a checkpoint or run folder of a model with an encoder.

    No class that the checkpoint names is built.

    Args:
        source: the checkpoint, whose averaged weights are used if it has any.
        parts: the networks ``likelihood``, ``encoder`` and ``reference``, changed in place.

    Raises:
        UserError: if the checkpoint cannot be read, or a part is absent or does not fit.
    """
    state = checkpoint.read(checkpoint.find_checkpoint(source))["state_dict"]
    tilted = any(name.startswith("prior.base.") for name in state)
    # Older checkpoints have the encoder outside the inference.
    inside = any(name.startswith("inference.encoder.") for name in state)
    prefixes = {
        "likelihood": "likelihood.",
        "encoder": "inference.encoder." if inside else "encoder.",
        "reference": "prior.base." if tilted else "prior.",
    }
    for name, part in parts.items():
        prefix = prefixes[name]
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if name == "encoder" and not own:
            raise UserError(f"{source}: holds no encoder, which a backbone needs")
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            last = str(error).splitlines()[-1].strip()
            raise UserError(f"{source}: its {name} does not match this recipe ({last})") from error
