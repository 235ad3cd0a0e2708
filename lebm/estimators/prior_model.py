"""A generator with a learned prior, both sampled by chains: what the methods without an inference network share."""

from __future__ import annotations

import torch
from torch import Tensor

from lebm.estimators.base import LatentEstimator, follow
from lebm.estimators.optim import AdamGroups
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["LatentPriorModel"]


class LatentPriorModel(LatentEstimator):
    """A likelihood, a prior and a chain for each; a method adds its loss.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        prior: ``p(z)``.
        prior_sampler: chain for ``p(z)``.
        posterior_sampler: chain for ``p(z | x)``.
        optimizer: the optimiser and its per-network settings.
        scale_likelihood: keep the ``1 / (2 sigma^2)`` and the constant of the likelihood in the loss. ``False`` is the published
            loss, ``|x - g(z)|^2`` summed over pixels. Gaussian likelihoods only.
        seed: of every random stream.
        noise_shards: pieces of the global batch; the number of processes must divide it.
        evaluation_steps: posterior transitions in validation, testing and prediction; those of ``posterior_sampler`` if ``None``.

    Raises:
        ValueError: if likelihood and prior disagree on the latent size, or the loss of an unscaled likelihood is not defined.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        prior: Prior,
        prior_sampler: Sampler,
        posterior_sampler: Sampler,
        optimizer: AdamGroups,
        scale_likelihood: bool = True,
        seed: int = 0,
        noise_shards: int = 8,
        evaluation_steps: int | None = None,
    ) -> None:
        super().__init__(optimizer, seed, noise_shards, evaluation_steps)
        if likelihood.latent_dim != prior.latent_dim:
            raise ValueError(f"the generator takes {likelihood.latent_dim} latent coordinates but the prior has {prior.latent_dim}")
        if not scale_likelihood and not hasattr(likelihood, "sigma"):
            raise ValueError("scale_likelihood=False is defined for a GaussianLikelihood only")
        self.likelihood = likelihood
        self.prior = prior
        self.prior_sampler = prior_sampler
        self.posterior_sampler = posterior_sampler
        self.scale_likelihood = scale_likelihood
        self.latent_dim = prior.latent_dim

    # For the loss

    def likelihood_loss(self, x: Tensor, z: Tensor, batch_idx: int, figures: dict[str, Tensor] | None) -> Tensor:
        """``-log p(x | z)``, mean over the batch, on the scale asked for."""
        nll = -self.likelihood.training_log_prob(x, z, self.noise("likelihood", batch_idx)).mean()
        if figures is not None:
            figures["train/nll_given_z"] = nll.detach()
        if self.scale_likelihood:
            return nll
        return self.likelihood.squared_error(nll, x[0].numel())  # type: ignore[operator]

    def chain_start(self, n: int, generator: RandomSource) -> Tensor:
        """Where ``n`` chains start: at draws of the reference, ``(n, latent_dim)``."""
        return self.prior.reference(n, generator)

    def run_chain(
        self, name: str, sampler: Sampler, target: LogDensity, n: int, batch_idx: int, figures: dict[str, Tensor] | None
    ) -> Tensor:
        """``n`` rows of a training chain from the reference, with its health among the figures if this step is logged."""
        noise = self.noise(name, batch_idx)
        return follow(name, sampler, target, self.chain_start(n, noise), noise, figures)

    def posterior(self, x: Tensor) -> LogDensity:
        """Unnormalised ``log p(z | x)`` as a function of ``z``."""
        likelihood, prior = self.likelihood.given(x), self.prior
        return lambda z: likelihood(z) + prior.log_density(z)

    # The answers

    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        start = self.prior.reference(n, generator)
        if self.prior.is_exact:
            return start
        return self.prior_sampler(self.prior.log_density, start, generator, steps=steps)

    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        with torch.no_grad():
            return self.likelihood.draw(self.sample_latent(n, steps=steps, generator=generator), generator)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        with torch.inference_mode(False):
            x = x.clone()  # an inference tensor could not take part in the chain's gradient
            start = self.prior.reference(x.shape[0], generator)
            return self.posterior_sampler(self.posterior(x), start, generator, steps=steps)

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.mean(z)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.log_prob(x, z) + self.prior.log_density(z)
