"""An encoder for a generator, where a recipe names none."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lebm.models.encoders import ConvEncoder, GaussianEncoder, MLPEncoder
from lebm.models.generators import ConvGenerator, Generator, MLPGenerator
from lebm.models.sequence_generators import SequenceGenerator
from lebm.models.text_encoder import SentenceEncoder

__all__ = ["mirror_encoder"]

_SMALL = 4096


def mirror_encoder(generator: nn.Module) -> GaussianEncoder:
    """An encoder with the layers of a generator in the opposite order.

    - :class:`~lebm.models.MLPGenerator`: an :class:`~lebm.models.MLPEncoder` of the same widths.
    - :class:`~lebm.models.ConvGenerator`: a :class:`~lebm.models.ConvEncoder` of the same channels, with
      biases.
    - A generator of sentences: a :class:`~lebm.models.SentenceEncoder` of the same sizes.
    - Any other generator of at most 4,096 numbers, such as a ladder for images of 32 px: an
      :class:`~lebm.models.MLPEncoder` with two hidden layers of 400.

    Raises:
        ValueError: for a larger generator of another class; name an encoder there.

    Example:
        >>> from lebm.inference import mirror_encoder
        >>> from lebm.models import MLPGenerator
        >>> mirror_encoder(MLPGenerator(2, [1, 4, 4], hidden=[8, 16]))
        MLPEncoder(
          latent_dim=2, in_shape=(1, 4, 4), hidden=[16, 8]
          ...
    """
    arguments: dict[str, Any] = getattr(generator, "_init_arguments", {})
    if isinstance(generator, SequenceGenerator):
        return SentenceEncoder(generator.latent_dim, generator.vocabulary_size, generator.max_length)
    if type(generator) is MLPGenerator:
        return MLPEncoder(generator.latent_dim, generator.out_shape, list(arguments["hidden"])[::-1])
    if type(generator) is ConvGenerator:
        channels, start = list(arguments["channels"])[::-1], arguments["start"]
        reached = start * 2 ** (len(channels) - 1)  # without halving in the first layer
        if generator.out_shape[1] in (reached, 2 * reached):
            return ConvEncoder(generator.latent_dim, generator.out_shape, channels, end=start, bias=True)
    if isinstance(generator, Generator) and math.prod(generator.out_shape) <= _SMALL:
        return MLPEncoder(generator.latent_dim, generator.out_shape)
    raise ValueError(
        f"no encoder can be made from {type(generator).__name__}: name one with inference.init_args.encoder"
    )
