"""Maximum likelihood with short-run Langevin from prior and posterior (paper 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lebm.estimators.base import LatentEstimator
from lebm.estimators.optim import AdamGroups
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["LatentMLE"]


class LatentMLE(LatentEstimator):
    r"""Pang, Han, Nijkamp, Zhu, Wu: *Learning Latent Space Energy-Based Prior Model*, NeurIPS 2020.

    With ``z+`` from the posterior and ``z-`` from the prior, both by short Langevin chains from N(0, I) and detached,

    .. math:: L = -\log p_\beta(x \mid z^+) + E_\alpha(z^+) - E_\alpha(z^-)

    has the gradients of eqs. 9 and 10 for generator and energy. With a :class:`~lebm.models.StandardNormal` prior the last
    two terms vanish and this is alternating back-propagation.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        prior: ``p(z)``; its energy is trained if it has one.
        prior_sampler: chain for ``z-``; 60 steps of 0.4 in the released SVHN script.
        posterior_sampler: chain for ``z+``; 20 steps of 0.1 there.
        optimizer: learning rates of ``generator`` and ``energy``.
        scale_likelihood: keep the ``1 / (2 sigma^2)`` and the constant of the likelihood in the loss. ``False`` is the released
            loss, ``|x - g(z)|^2`` summed over pixels, which under Adam differs only through Adam's epsilon. Gaussian likelihoods only.
        seed: of every random stream.
        noise_shards: pieces of the global batch; the number of processes must divide it.
        evaluation_steps: posterior transitions in validation, testing and prediction, where the paper leaves their number open;
            those of ``posterior_sampler`` if ``None``.

    Raises:
        ValueError: if likelihood and prior disagree on the latent size.
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
        optimizer.check(self.networks())

    def networks(self) -> Mapping[str, nn.Module]:
        trained: dict[str, nn.Module] = {"generator": self.likelihood}
        if any(True for _ in self.prior.parameters()):
            trained["energy"] = self.prior
        return trained

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int, figures: dict[str, Tensor] | None) -> Tensor:
        x = self.observations(batch)
        positives = self._posterior_latents(x, batch_idx, figures)
        nll = -self.likelihood.log_prob(x, positives).mean()
        total = nll if self.scale_likelihood else self._released_scale(nll, x)
        if not self.prior.is_exact:
            negatives = self._prior_latents(x.shape[0], batch_idx, figures)
            energies = self.prior.energy(torch.cat([positives, negatives]))
            up, down = energies.split([x.shape[0], negatives.shape[0]])
            gap = up.mean() - down.mean()
            total = total + gap
            if figures is not None:
                figures["train/energy_gap"] = gap.detach()
        if figures is not None:
            figures["train/nll_given_z"] = nll.detach()
        return total

    def _released_scale(self, nll: Tensor, x: Tensor) -> Tensor:
        likelihood = self.likelihood
        return (nll - likelihood.log_normaliser(x[0].numel())) * (2 * likelihood.sigma**2)  # type: ignore[operator,union-attr]

    def _posterior_latents(self, x: Tensor, batch_idx: int, figures: dict[str, Tensor] | None) -> Tensor:
        noise = self.noise("posterior", batch_idx)
        start = self.prior.reference(x.shape[0], noise)
        return self._run("posterior", self.posterior_sampler, self._posterior(x), start, noise, figures)

    def _prior_latents(self, n: int, batch_idx: int, figures: dict[str, Tensor] | None) -> Tensor:
        noise = self.noise("prior", batch_idx)
        start = self.prior.reference(n, noise)
        return self._run("prior", self.prior_sampler, self.prior.log_density, start, noise, figures)

    def _posterior(self, x: Tensor) -> LogDensity:
        likelihood, prior = self.likelihood, self.prior
        return lambda z: likelihood.log_prob(x, z) + prior.log_density(z)

    @staticmethod
    def _run(
        name: str, sampler: Sampler, target: LogDensity, start: Tensor, noise: RandomSource, figures: dict[str, Tensor] | None
    ) -> Tensor:
        if figures is None:
            return sampler(target, start, noise)
        end, info = sampler.run(target, start, noise)
        figures.update({f"mcmc/{name}/{key}": value for key, value in info.scalars().items()})
        return end

    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        start = self.prior.reference(n, generator)
        if self.prior.is_exact:
            return start
        return self.prior_sampler(self.prior.log_density, start, generator, steps=steps)

    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        return self.decode(self.sample_latent(n, steps=steps, generator=generator))

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        with torch.inference_mode(False):
            x = x.clone()  # an inference tensor could not take part in the chain's gradient
            start = self.prior.reference(x.shape[0], generator)
            return self.posterior_sampler(self._posterior(x), start, generator, steps=steps)

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.mean(z)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.likelihood.log_prob(x, z) + self.prior.log_density(z)
