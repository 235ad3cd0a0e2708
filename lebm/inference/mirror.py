"""An encoder for a generator, where a recipe names none."""

from __future__ import annotations

from typing import Any

from torch import nn

from lebm.models.encoders import ConvEncoder, GaussianEncoder, MLPEncoder
from lebm.models.generators import ConvGenerator, MLPGenerator
from lebm.models.ladder import LadderGenerator
from lebm.models.sequence_generators import SequenceGenerator
from lebm.models.text_encoder import SentenceEncoder

__all__ = ["mirror_encoder"]


def mirror_encoder(generator: nn.Module) -> GaussianEncoder:
    """An encoder with the layers of a generator in the opposite order.

    - :class:`~lebm.models.MLPGenerator`: an :class:`~lebm.models.MLPEncoder` of the same widths.
    - :class:`~lebm.models.ConvGenerator`: a :class:`~lebm.models.ConvEncoder` of the same channels, with
      biases.
    - A :class:`~lebm.models.LadderGenerator` of images up to 32 px: an :class:`~lebm.models.MLPEncoder` of
      widths 400 and 400 for all layers together.
    - A generator of sentences: a :class:`~lebm.models.SentenceEncoder` of the same sizes.

    Raises:
        ValueError: for any other generator; name an encoder there.

    Example:
        >>> from lebm.inference import mirror_encoder
        >>> from lebm.models import MLPGenerator
        >>> mirror_encoder(MLPGenerator(2, [1, 4, 4], hidden=[8, 16]))
        MLPEncoder(
          latent_dim=2, in_shape=(1, 4, 4), hidden=[16, 8]
          ...
    """
    arguments: dict[str, Any] = getattr(generator, "_init_arguments", {})
    if type(generator) is MLPGenerator:
        return MLPEncoder(generator.latent_dim, generator.out_shape, list(arguments["hidden"])[::-1])
    if type(generator) is ConvGenerator:
        channels, start = list(arguments["channels"])[::-1], arguments["start"]
        # The first layer keeps the size if the generator has fewer doublings than the encoder has layers.
        fits = generator.out_shape[1] in (start * 2 ** (len(channels) - 1), start * 2 ** len(channels))
        if fits:
            return ConvEncoder(generator.latent_dim, generator.out_shape, channels, end=start, bias=True)
    if isinstance(generator, LadderGenerator) and generator.out_shape[-1] <= 32:
        return MLPEncoder(generator.latent_dim, generator.out_shape)
    if isinstance(generator, SequenceGenerator):
        return SentenceEncoder(generator.latent_dim, generator.vocabulary_size, generator.max_length)
    raise ValueError(
        f"no encoder can be made from {type(generator).__name__}: name one with inference.init_args.encoder"
    )
