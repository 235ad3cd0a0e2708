"""Inference by an encoder, alone or as the start of a posterior chain."""

import math
from typing import Any, Literal

from torch import Tensor, nn

from lebm.inference.base import Inference, Inferred, PosteriorChain
from lebm.models.adapters import ModuleAutoencoder
from lebm.models.encoders import ConvEncoder, GaussianEncoder, MLPEncoder, SentenceEncoder
from lebm.models.generators import ConvGenerator, Generator, MLPGenerator
from lebm.models.layers import check_choice
from lebm.models.sequence_generators import SequenceGenerator
from lebm.samplers.noise import RandomSource

_SMALL = 4096


def mirror_encoder(generator: nn.Module) -> GaussianEncoder:
    """Return an encoder with the layers of a generator in the opposite order.

    - :class:`~lebm.models.ModuleAutoencoder`: its own encoder
    - :class:`~lebm.models.MLPGenerator`: an :class:`~lebm.models.MLPEncoder` of the same widths
    - :class:`~lebm.models.ConvGenerator`: a :class:`~lebm.models.ConvEncoder` of the same channels, with
      biases
    - a generator of sentences: a :class:`~lebm.models.SentenceEncoder` for the same vocabulary and length
    - any other generator of at most 4,096 numbers, such as a ladder for images of 32 px: an
      :class:`~lebm.models.MLPEncoder` with two hidden layers of 400

    Raises:
        ValueError: for a larger generator of another class, which needs an explicit encoder.

    Example:
        >>> from lebm.inference import mirror_encoder
        >>> from lebm.models import MLPGenerator
        >>> mirror_encoder(MLPGenerator(2, [1, 4, 4], hidden=[8, 16]))
        MLPEncoder(
          latent_dim=2, in_shape=(1, 4, 4), hidden=[16, 8]
          ...
    """
    generator = getattr(generator, "_orig_mod", generator)  # of a compiled generator
    if isinstance(generator, ModuleAutoencoder):
        return generator.mirror()
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
        f"no encoder can be made from {type(generator).__name__}: give the inference an encoder"
        " (inference.init_args.encoder of a recipe)"
    )


class Variational(Inference):
    r"""Inference by a reparameterised sample of an encoder, trained by the evidence lower bound (Kingma &
    Welling 2014).

    The loss of the model includes :math:`\mathrm{KL}(q(z \mid x) \| p_0(z))`, and its gradients flow through
    the sample, so the energy of the prior also trains the encoder. No chain runs in training, and the bias
    comes from the diagonal Gaussian ``q``.

    Args:
        encoder: encoder ``q(z | x)``; :func:`mirror_encoder` of the generator if ``None``.
        kl: ``"closed_form"``, layer by layer given the sampled layers above, or ``"monte_carlo"``, as
            released for paper 3.
        warm_up: scale of the KL annealing in optimiser steps, at least 0. The weight of the prior's pull on
            the encoder is ``prior_pull * (1 - exp(-step / warm_up))``, with 1 for the first step.
        prior_pull: weight of the prior's pull on the encoder, above 0 and at most 1 (the beta of Higgins et
            al. 2017). Below 1 the latents keep more information about an observation, so that a decoder of
            sentences, which could ignore its latents, still uses them.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> from lebm.inference import Variational
        >>> from lebm.models import MLPEncoder
        >>> part = Variational(MLPEncoder(2, [1, 4, 4], hidden=[8]))
        >>> inferred = part.infer(torch.zeros(3, 1, 4, 4), None, posterior=None, noise=None)
        >>> inferred.z.shape, inferred.q.mean.requires_grad
        (torch.Size([3, 2]), True)
    """

    runs_chain = False
    needs_encoder = True

    def __init__(
        self,
        encoder: GaussianEncoder | nn.Module | None = None,
        kl: Literal["closed_form", "monte_carlo"] = "closed_form",
        warm_up: float = 0.0,
        prior_pull: float = 1.0,
    ) -> None:
        super().__init__(encoder)
        check_choice("kl", kl, ("closed_form", "monte_carlo"))
        if not warm_up >= 0:
            raise ValueError(f"warm_up must not be negative, but is {warm_up}")
        if not 0 < prior_pull <= 1:
            raise ValueError(f"prior_pull must be above 0 and at most 1, but is {prior_pull}")
        self.kl, self.warm_up, self.prior_pull = kl, warm_up, prior_pull

    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        assert self.encoder is not None
        q = self.encoder(x)
        return Inferred(q.rsample(noise), q)

    def prior_weight(self, step: float) -> float:
        """Return the weight of the prior's pull on the encoder in optimiser step ``step``, in [0, 1]."""
        grown = 1.0 if self.warm_up == 0 else 1.0 - math.exp(-(step + 1) / self.warm_up)
        return self.prior_pull * grown


class Taught(Inference):
    r"""Inference by a posterior chain from a sample of an encoder, which learns the ends of the chains.

    The encoder's loss is :math:`-\log q(\tilde z \mid x)` at the detached end :math:`\tilde z` of the chain
    (the inference half of dual-MCMC teaching, Cui & Han 2023). A few steps are enough once the encoder has
    learned the ends of the chains. The bias comes from the finite chain, whose start is good.

    Args:
        encoder: encoder ``q(z | x)``; :func:`mirror_encoder` of the generator if ``None``.

    Example:
        >>> import torch
        >>> from lebm.inference import PosteriorChain, Taught
        >>> from lebm.models import MLPEncoder
        >>> chain = PosteriorChain(lambda start, noise: start + 1, lambda noise: torch.zeros(3, 2))
        >>> part = Taught(MLPEncoder(2, [1, 4, 4], hidden=[8]))
        >>> inferred = part.infer(torch.zeros(3, 1, 4, 4), None, chain, noise=None)
        >>> inferred.z.requires_grad, inferred.teaching.requires_grad
        (False, True)
    """

    needs_encoder = True

    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        assert self.encoder is not None
        q = self.encoder(x)
        end = posterior.run(q.rsample(noise).detach(), noise)
        return Inferred(end, teaching=-q.log_prob(end).mean())


class Frozen(Inference):
    """Inference by a sample of a trained encoder, detached: only the prior learns (the two-stage scheme).

    The encoder, the generator and the networks of the reference are copied from ``backbone`` when training
    begins, and never change.

    Args:
        encoder: encoder ``q(z | x)`` with the architecture of the backbone; :func:`mirror_encoder` of the
            generator if ``None``.
        backbone: run folder or checkpoint; ``None`` if the weights are loaded already.

    Example:
        >>> import torch
        >>> from lebm.inference import Frozen
        >>> from lebm.models import MLPEncoder
        >>> part = Frozen(MLPEncoder(2, [1, 4, 4], hidden=[8]))
        >>> part.infer(torch.zeros(3, 1, 4, 4), None, posterior=None, noise=None).z.requires_grad
        False
    """

    runs_chain = False
    needs_encoder = True

    def __init__(
        self, encoder: GaussianEncoder | nn.Module | None = None, backbone: str | None = None
    ) -> None:
        super().__init__(encoder)
        self.backbone = backbone

    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        return Inferred(self.start(x, noise))  # type: ignore[arg-type]
