"""A generator with a learned prior, both sampled by chains: what the methods without an inference network
share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lebm.estimators.answers import ModelChain, NoChainError
from lebm.estimators.base import LatentEstimator, contrast
from lebm.estimators.optim import AdamGroups
from lebm.models.chain_space import ChainSpace
from lebm.models.frozen import frozen
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["LatentPriorModel"]


class LatentPriorModel(LatentEstimator):
    """A likelihood, a prior and a chain for each; a method adds its loss.

    Every chain sees the networks :func:`~lebm.models.frozen`, whatever mode the model is in, and a chain pool
    belongs to training alone.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        prior: ``p(z)``.
        prior_sampler: chain for ``p(z)``.
        posterior_sampler: chain for ``p(z | x)``; ``None`` for a method that infers without one.
        optimizer: the optimiser and its per-network settings.
        scale_likelihood: keep the ``1 / (2 sigma^2)`` and the constant of the likelihood in the loss.
            ``False`` is the published loss, ``|x - g(z)|^2`` summed over pixels. Gaussian likelihoods only.
        seed: of every random stream.
        noise_shards: pieces of the global batch; the number of processes must divide it.
        evaluation_steps: posterior transitions of the answers; those of ``posterior_sampler`` if ``None``.

    Raises:
        ValueError: if likelihood and prior disagree on the latent size, or the loss of an unscaled likelihood
            is not defined.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        prior: Prior,
        prior_sampler: Sampler,
        posterior_sampler: Sampler | None,
        optimizer: AdamGroups,
        scale_likelihood: bool = True,
        seed: int = 0,
        noise_shards: int = 8,
        evaluation_steps: int | None = None,
    ) -> None:
        super().__init__(optimizer, seed, noise_shards, evaluation_steps)
        if likelihood.latent_dim != prior.latent_dim:
            raise ValueError(
                f"the generator takes {likelihood.latent_dim} latent coordinates but the prior has"
                f" {prior.latent_dim}"
            )
        if not scale_likelihood and not hasattr(likelihood, "sigma"):
            raise ValueError("scale_likelihood=False is defined for a GaussianLikelihood only")
        self.likelihood = likelihood
        self.prior = prior
        self.space = ChainSpace(prior)
        self.prior_sampler = prior_sampler
        self.posterior_sampler = posterior_sampler
        self.scale_likelihood = scale_likelihood
        self.latent_dim = prior.latent_dim

    # For the loss

    def likelihood_loss(self, x: Tensor, z: Tensor, batch_idx: int) -> Tensor:
        """``-log p(x | z)``, mean over the batch, on the scale asked for."""
        nll = -self.likelihood.training_log_prob(x, z, self.noise("likelihood", batch_idx)).mean()
        self.note("train/nll_given_z", nll)
        if self.scale_likelihood:
            return nll
        return self.likelihood.squared_error(nll, x[0].numel())  # type: ignore[operator]

    def energy_gap(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Mean energy of latents of data less that of latents of the prior, ``(B, latent_dim)`` each."""
        gap = contrast(self.prior.energy, positives, negatives)
        self.note("train/energy_gap", gap)
        return gap

    def chain_start(self, n: int, generator: RandomSource) -> Tensor:
        """Where ``n`` chains start: at draws of the reference, ``(n, latent_dim)``, in the coordinates that
        chains move.
        """
        return self.space.reference(n, generator)

    def positives(self, x: Tensor, batch_idx: int) -> Tensor:
        """``z+``: latents of data ``x: (B, *event)`` by a posterior chain, ``(B, latent_dim)``, detached."""
        target = self.space.posterior(self.likelihood.given(x))
        noise = self.noise("posterior", batch_idx)
        return self.run_chain("posterior", self.posterior_sampler, target, len(x), noise)

    def negatives(self, n: int, batch_idx: int) -> Tensor:
        """``z-``: ``n`` latents of the prior by its chain, ``(n, latent_dim)``, detached."""
        noise = self.noise("prior", batch_idx)
        return self.run_chain("prior", self.prior_sampler, self.space.log_density, n, noise)

    def run_chain(
        self, name: str, sampler: Sampler | None, target: LogDensity, n: int, noise: RandomSource
    ) -> Tensor:
        """``n`` latents of a training chain from the reference; its health is noted under ``name``."""
        assert sampler is not None, f"{type(self).__name__} has no {name}_sampler"
        with frozen(self.prior, self.likelihood):
            return self._latents(self.follow(name, sampler, target, self.chain_start(n, noise), noise))

    def _latents(self, state: Tensor) -> Tensor:
        with torch.no_grad():
            return self.space.latents(state)

    def posterior(self, x: Tensor) -> LogDensity:
        """Unnormalised ``log p(z | x)`` as a function of ``z``."""
        likelihood, prior = self.likelihood.given(x), self.prior
        return lambda z: likelihood(z) + prior.log_density(z)

    # The answers

    @property
    def latent_prior(self) -> Prior:
        return self.prior

    def prior_chain(self, n: int, generator: RandomSource = None) -> ModelChain:
        if self.prior.is_exact:
            return super().prior_chain(n, generator)
        return ModelChain(self.space.log_density, self.prior_sampler, self.chain_start(n, generator))

    def posterior_chain(self, x: Tensor, generator: RandomSource = None) -> ModelChain:
        if self.posterior_sampler is None:
            raise NoChainError("this model infers by its encoder, no chain to look at")
        target = self.space.posterior(self.likelihood.given(x))
        return ModelChain(target, self.posterior_sampler, self.chain_start(len(x), generator))

    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        if self.prior.is_exact:
            return self.prior.reference(n, generator).detach()
        with frozen(self.prior, self.prior_sampler):
            chain = self.prior_chain(n, generator)
            return self._latents(chain.sampler(chain.target, chain.start.detach(), generator, steps=steps))

    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        with torch.no_grad():
            return self.likelihood.draw(self.sample_latent(n, steps=steps, generator=generator), generator)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        sampler = self.posterior_sampler
        assert sampler is not None, f"{type(self).__name__} has no posterior_sampler"
        with torch.inference_mode(False), frozen(self.prior, self.likelihood, sampler):
            chain = self.posterior_chain(
                x.clone(), generator
            )  # an inference tensor could not take part in a gradient
            steps = self.evaluation_steps if steps is None else steps
            return self._latents(sampler(chain.target, chain.start, generator, steps=steps))

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.mean(z)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.log_prob(x, z) + self.prior.log_density(z)
