"""What the methods of papers 1 to 3 share in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lebm.estimators.base import contrast
from lebm.estimators.prior_chains import PriorChains
from lebm.inference import Inferred, PosteriorChain, Variational
from lebm.models.encoders import DiagonalGaussian
from lebm.models.hierarchical_priors import GaussianHierarchy
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import RandomSource

__all__ = ["LatentPriorModel"]


class LatentPriorModel(PriorChains):
    """The networks that train and the terms of a loss; a method adds them up.

    See :class:`PriorChains` for the arguments. ``optimizer`` needs a learning rate for each of
    :meth:`networks`.
    """

    def networks(self) -> Mapping[str, nn.Module]:
        parts = {
            "generator": self.likelihood,
            "encoder": self.inference.encoder,
            "energy": getattr(self.prior, "tilt", None),
            "reference": self.reference,
        }
        return {name: part for name, part in parts.items() if part is not None and _trains(part)}

    @property
    def trains_reference(self) -> bool:
        """Whether the reference has networks that learn."""
        return _trains(self.reference)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.frozen_parts.eval()
        return self

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.frozen_parts.load()

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:
            self.frozen_parts.check()

    # For the loss

    def infer(self, x: Tensor, batch: Mapping[str, Tensor], batch_idx: int) -> Inferred:
        """``z+``: latents ``(B, latent_dim)`` of ``x: (B, *event)``, the :meth:`observations` of a batch."""
        target = self.posterior_target(x)

        def run(start: Tensor | None, noise: RandomSource) -> Tensor:
            return self.run_chain("posterior", self.posterior_sampler, target, len(x), noise, start)

        def reference(noise: RandomSource) -> Tensor:
            return self._latents(self.chain_start(len(x), noise))

        index = batch.get("index")
        if index is not None and "flipped" in batch:  # the mirror image of a row has another posterior
            index = 2 * index + batch["flipped"].to(index)
        noise = self.noise("posterior", batch_idx)
        return self.inference.infer(x, index, PosteriorChain(run, reference), noise)

    def posterior_target(self, x: Tensor) -> LogDensity:
        """What posterior chains sample in training, in the coordinates of the chains."""
        return self.space.posterior(self.likelihood.given(x))

    def likelihood_loss(self, x: Tensor, z: Tensor, batch_idx: int) -> Tensor:
        """``-log p(x | z)``, mean over the batch, on the scale asked for; zero if the generator is frozen."""
        if not _trains(self.likelihood) and not z.requires_grad:
            return x.new_zeros((), dtype=z.dtype)
        nll = -self.likelihood.training_log_prob(x, z, self.noise("likelihood", batch_idx)).mean()
        self.note("train/nll_given_z", nll)
        if self.scale_likelihood:
            return nll
        return self.likelihood.squared_error(nll, x[0].numel())  # type: ignore[operator]

    def encoder_loss(self, data: Inferred) -> Tensor:
        """What the encoder alone learns from, a mean over the batch; zero without an encoder that learns.

        It is ``KL(q || p0)`` for a variational encoder and ``-log q(z+ | x)`` for a taught one.
        """
        if data.teaching is not None:
            self.note("train/inference_nll", data.teaching)
            return data.teaching
        if data.q is None:
            return data.z.new_zeros(())
        q, z, base = data.q, data.z, self.reference
        if isinstance(self.inference, Variational) and self.inference.kl == "monte_carlo":
            return (q.log_prob(z) - base.log_density(z)).mean()
        zeros = torch.zeros_like(z)
        p = base.conditionals(z) if isinstance(base, GaussianHierarchy) else DiagonalGaussian(zeros, zeros)
        parts = q.divergences(p)
        self.note_divergences(parts)
        return parts.sum(dim=1).mean()

    def note_divergences(self, parts: Tensor) -> None:
        """Note the divergences of coordinates, ``(B, latent_dim)`` in nats."""
        self.note("kl", parts.sum(dim=1).mean())

    @property
    def prior_weight(self) -> float:
        """Weight of the prior's pull on the encoder in this step, in [0, 1]."""
        if not isinstance(self.inference, Variational):
            return 1.0
        return self.inference.prior_weight(math.inf if self._trainer is None else self.trainer.global_step)

    def energy_gap(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Mean energy of latents of data less that of latents of the prior, ``(B, latent_dim)`` each."""
        gap = contrast(self.prior.energy, positives, negatives)
        self.note("train/energy_gap", gap)
        return gap

    def negatives(self, n: int, batch_idx: int) -> Tensor:
        """``z-``: ``n`` latents of the prior by its chain, ``(n, latent_dim)``, detached."""
        noise = self.noise("prior", batch_idx)
        return self.run_chain("prior", self.prior_sampler, self.space.log_density, n, noise)


def _trains(part: nn.Module) -> bool:
    """Whether a part has parameters that learn."""
    return any(parameter.requires_grad for parameter in part.parameters())
