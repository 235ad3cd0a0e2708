"""The likelihood suite: log p(x) of test images, by importance sampling and by annealing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lebm.density_ratio.log_ratio import direct_log_z
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import first_normal
from lebm.evaluation.intervals import Interval, mean_interval
from lebm.evaluation.record import Figure, SuiteResult
from lebm.models.priors import EnergyPrior, Prior
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ, few_weights
from lebm.samplers.base import LogDensity
from lebm.samplers.importance import Proposal, UnitNormal
from lebm.samplers.metropolis import HMC
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["LatentGaussian", "likelihood_suite", "log_marginal", "model_log_z", "prior_log_z"]

LONG_RUN = 10  # length of the prior chain that replaces exact samples, in lengths of the chain in training
DIRECT = 40  # samples of the base per annealed chain, for an estimate of about equal cost
CANDIDATES = 48  # posterior chains per image; annealing starts at the best one
PRIOR_CHAINS = 512


@dataclass
class LatentGaussian:
    """One Gaussian of the latent per row, ``z = mean + factor u`` with ``u ~ N(0, I)``, as a start of
    annealing.

    Attributes:
        mean: means ``(B, d)``.
        factor: lower triangular factors ``(B, d, d)``.

    Example:
        >>> from lebm.evaluation.marginal_likelihood import LatentGaussian
        >>> import torch
        >>> LatentGaussian.standard(torch.zeros(4, 2)).place(torch.ones(4, 2)).shape
        torch.Size([4, 2])
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def fitted(cls, draws: Tensor, widen: float = 1.2) -> LatentGaussian:
        """Fit Gaussians to samples ``(chains, B, d)`` of posterior chains.

        Annealing weights are unbiased for every start. With few chains for the number of coordinates,
        covariances shrink toward their diagonal. All are widened by ``widen``, because thin tails cost more
        precision than heavy ones.
        """
        chains, _, d = draws.shape
        mean = draws.mean(dim=0)
        centred = (draws - mean).transpose(0, 1)
        covariance = centred.transpose(1, 2) @ centred / max(1, chains - 1)
        trust = max(0.0, 1 - 2 * d / chains)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        spread = diagonal.clamp_min(1e-8 * float(diagonal.mean()) + 1e-12)
        variances = torch.diag_embed(spread)
        covariance = trust * covariance + (1 - trust) * variances + 1e-6 * variances
        return cls(mean, widen * torch.linalg.cholesky(covariance))

    @classmethod
    def located(
        cls, joint: Callable[[Tensor], LogDensity], x: Tensor, candidates: Tensor, generator: RandomSource
    ) -> LatentGaussian:
        """Fit Gaussians around the most likely of the ``candidates: (n, B, d)`` for each observation of
        ``x: (B, *event)``, whose neighbourhoods exact chains explore.

        In each of two rounds, 16 chains per observation explore in the coordinates of the last Gaussian, and
        a new Gaussian is fitted. Each Gaussian covers a single mode instead of the distance between modes.
        The estimate of :func:`log_marginal`, which describes ``joint``, then lacks the mass of other modes,
        but is still a lower bound.
        """
        chains, (_, rows, d) = 16, candidates.shape
        with torch.no_grad():
            given = joint(x)
            best = torch.stack([given(z) for z in candidates], dim=1).nan_to_num(-torch.inf).argmax(dim=1)
        target, start = joint(x.repeat_interleave(chains, dim=0)), cls.standard(candidates[0])
        likeliest = candidates.transpose(0, 1)[torch.arange(rows, device=x.device), best]
        z = likeliest.repeat_interleave(chains, dim=0)
        kernel = HMC(30, 0.05, leapfrog_steps=5).to(x.device)
        for _ in range(2):
            wide = start.repeated(chains)

            def whitened(u: Tensor, wide: LatentGaussian = wide) -> Tensor:
                return target(wide.place(u))

            u = kernel.warm_up(whitened, wide.whiten(z), generator, steps=60, across_processes=False)
            z = wide.place(kernel(whitened, u, generator))
            start = cls.fitted(z.reshape(rows, chains, d).transpose(0, 1))
            kernel = HMC(30, 0.5, leapfrog_steps=5).to(x.device)
        return start

    @classmethod
    def standard(cls, like: Tensor) -> LatentGaussian:
        """Return N(0, I) for every row of ``like`` ``(B, d)``."""
        eye = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        return cls(torch.zeros_like(like), eye.expand(len(like), -1, -1))

    def place(self, u: Tensor) -> Tensor:
        """Map whitened coordinates to latents, both ``(B, d)``."""
        return self.mean + (self.factor @ u.unsqueeze(2)).squeeze(2)

    def whiten(self, z: Tensor) -> Tensor:
        """Invert :meth:`place`."""
        centred = (z - self.mean).unsqueeze(2)
        return torch.linalg.solve_triangular(self.factor, centred, upper=False).squeeze(2)

    def repeated(self, times: int) -> LatentGaussian:
        """Repeat every row ``times`` times; copies are neighbours."""
        return LatentGaussian(self.mean.repeat_interleave(times, 0), self.factor.repeat_interleave(times, 0))


def log_marginal(
    joint: Callable[[Tensor], LogDensity],
    x: Tensor,
    start: LatentGaussian,
    levels: int,
    chains: int,
    generator: RandomSource = None,
    *,
    posterior: Tensor | None = None,
) -> LogZ:
    """Return ``log ∫ p~(x, z) dz`` of every row of ``x``, which is ``log p(x) + log Z``.

    It anneals from one Gaussian per row to the joint density, in coordinates in which the Gaussian is N(0,
    I), so that one step size fits all rows and coordinates. One level is importance sampling with the
    Gaussian as proposal. The estimate is low on average, or high on average by annealing backwards from exact
    posterior samples.

    Args:
        joint: function from observations ``(n, *event)`` to the differentiable ``log p~(x, z)`` of
            ``z: (n, d)``.
        x: observations ``(B, *event)``.
        start: start of annealing, one Gaussian per row of ``x``.
        levels: number of annealing levels; the step size is adapted on separate chains.
        chains: number of chains per row, at least 2.
        generator: source of randomness.
        posterior: exact samples given ``x``, ``(B, chains, d)``, for the bound from above.

    Returns:
        Estimates ``(B,)`` with intervals.
    """
    wide, (kernel, annealing) = start.repeated(chains), _annealing(levels, x.device)
    target = joint(x.repeat_interleave(chains, dim=0))
    volume, unit = wide.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1), UnitNormal(wide.mean)
    count, reverse = len(wide.mean), posterior is not None

    def whitened(u: Tensor) -> Tensor:
        return target(wide.place(u)) + volume

    if levels > 1:
        # Other processes may have no rows.
        draws = unit.reference(count, generator)
        kernel.warm_up(whitened, draws, generator, steps=100, across_processes=False)
    u = unit.reference(count, generator) if posterior is None else wide.whiten(posterior.flatten(0, 1))
    weights, _ = annealing.log_weights(whitened, unit.log_density, u, generator, reverse=reverse)
    return LogZ.from_log_weights(weights.reshape(len(x), chains).T, reverse=reverse)


def prior_log_z(
    prior: Prior, levels: int, long_run: Tensor, generator: RandomSource = None
) -> tuple[LogZ, LogZ]:
    """Estimate the log-constant of a tilted prior from below and from above, each by n annealed chains.

    ``long_run`` are samples of the prior, ``(n, d)``, from settled chains, for the bound from above.

    Raises:
        UserError: if the prior has no normalised base density.
    """
    base = getattr(prior, "base", None)
    if not isinstance(base, Proposal):
        raise UserError(
            f"{type(prior).__name__} has no base density to anneal from, so its log Z cannot be estimated"
        )
    (kernel, annealing), log_density = _annealing(levels, long_run.device), prior.target()
    few = base.reference(min(128, len(long_run)), generator).detach()
    kernel.warm_up(log_density, few, generator, steps=100, across_processes=False)
    return annealing.bracket(log_density, base, long_run, generator)


def _annealing(levels: int, device: torch.device) -> tuple[HMC, AnnealedImportanceSampling]:
    """Return HMC with three leapfrog steps, and annealing by it; a single level is importance sampling."""
    kernel = HMC(1, 0.3, leapfrog_steps=3).to(device)
    return kernel, AnnealedImportanceSampling(kernel, levels, "sigmoid" if levels > 1 else "linear")


def long_run(model: LatentModel, n: int, noise: Noise) -> Tensor:
    """Draw from a model's prior by a chain ``LONG_RUN`` times as long as in training, ``(n, latent_dim)``."""
    length = model.chain_steps("prior")
    return model.sample_latent(n, steps=None if length is None else LONG_RUN * length, generator=noise)


def model_log_z(
    model: LatentModel, levels: int, chains: int, noise: Callable[[str], Noise]
) -> tuple[LogZ, LogZ]:
    """Estimate ``log Z`` of a model's prior from below and from above; both are zero for a normalised prior.

    If samples of the base alone give a narrower interval than :func:`prior_log_z`, both are the direct
    estimate, as one object. ``noise`` is a function from a purpose to its noise.
    """
    prior = model.latent_prior
    if prior is None or prior.is_exact:
        zero = torch.zeros((), dtype=torch.float64)
        exact = LogZ(zero, zero, zero, zero + chains)
        return exact, replace(exact)
    draws = long_run(model, chains, noise("long run"))
    below, above = prior_log_z(prior, levels, draws, noise("log z"))
    if isinstance(prior, EnergyPrior):
        direct = direct_log_z(prior, DIRECT * chains, noise("direct log z"))
        annealed = max(below.high, above.high) - min(below.low, above.low)
        if direct.ess >= few_weights(DIRECT * chains) and direct.high - direct.low < annealed:
            return direct, direct
    return below, above


def likelihood_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure log p(x) by annealed and plain importance sampling, and log Z of the prior with its error.

    Units are nats per image and bits per dimension. For dual-MCMC teaching the density belongs to the
    generator, not to the image energy.
    """
    model = subject.model
    result = SuiteResult(
        {
            "name": "bounds on log p(x)",
            "density": "of pixels in [-1, 1], observation noise included; bits count 256 grey levels",
            "levels": settings.levels,
            "chains_an_image": settings.chains,
            "kernel": "HMC, 3 leapfrog steps, step adapted to 0.8 acceptance",
            "start": (
                f"a Gaussian per image, around the best of {CANDIDATES} posterior chains, fitted to exact"
                " chains from there"
            ),
            "bound": (
                "the numerator is low on average; the subtracted log Z is the estimate from below, which"
                " makes log p(x) high; the interval is over images and reaches down to the estimate of log Z"
                " from above"
            ),
            "seed": settings.seed,
        }
    )

    def noise(purpose: str) -> Noise:
        return Noise([(settings.seed, "likelihood", purpose)])

    def start_of(x: Tensor, purpose: str) -> LatentGaussian:
        wide = x.repeat_interleave(CANDIDATES, dim=0)
        z = model.encode(wide, steps=settings.steps, generator=noise(purpose)).detach()
        candidates = z.reshape(len(x), CANDIDATES, -1).transpose(0, 1)
        return LatentGaussian.located(model.posterior, x, candidates, noise(f"{purpose} surroundings"))

    def estimate_of(
        x: Tensor, start: LatentGaussian, levels: int, purpose: str, z: Tensor | None = None
    ) -> LogZ:
        return log_marginal(model.posterior, x, start, levels, settings.chains, noise(purpose), posterior=z)

    below, above = model_log_z(model, 5 * settings.levels, PRIOR_CHAINS, noise)
    draws, levels, how = PRIOR_CHAINS, 5 * settings.levels, "normal, over annealed chains"
    if model.latent_prior is None or model.latent_prior.is_exact:
        how = "known, because the prior is normalised"
    elif below is above:
        draws, levels, how = PRIOR_CHAINS * DIRECT, 1, "normal, over samples of the base"
    for name, bound in (("below", below), ("above", above)):
        value, low, high = (float(end) for end in (bound.estimate, bound.low, bound.high))
        few = ", joined with the interval of log-normal weights" if bound.ess < few_weights(draws) else ""
        interval = Interval(value, low, high, f"{how}{few}")
        details: dict[str, Any] = {"ess": float(bound.ess), "levels": levels}
        result.figures.append(Figure.of(f"log_z/{name}", interval, draws, "prior", **details))
    images = first_normal(subject.images, settings.likelihood_images, settings.seed)
    x = model.observations({"x": images.to(model.device)})
    start, dimensions = start_of(x, "proposal"), x[0].numel()
    for name, levels, purpose in (("ais", settings.levels, "ais"), ("importance_sampling", 1, "is")):
        estimate = estimate_of(x, start, levels, purpose)
        over_images = mean_interval(estimate.estimate)
        value, half = over_images.value - float(below.estimate), over_images.high - over_images.value
        down = math.hypot(half, max(float(below.high), float(above.high)) - float(below.estimate))
        up = math.hypot(half, float(below.estimate) - float(below.low))
        method = "Student's t over images and the interval of log Z"
        interval = Interval(value, value - down, value + up, method)
        details = {
            "unit": "nats per image",
            "log_z": float(below.estimate),
            "median_ess": float(estimate.ess.median()),
            "chains": settings.chains,
        }
        result.figures.append(Figure.of(f"log_likelihood/{name}", interval, len(x), "test", **details))
        if x.dim() == 4:  # vectors have no grey levels
            # A grey level has the density at its centre times its width 1 / 127.5.
            ends = (interval.value, interval.high, interval.low)
            bits = [-(nats - dimensions * math.log(127.5)) / (dimensions * math.log(2)) for nats in ends]
            name, interval = f"bits_per_dimension/{name}", Interval(bits[0], bits[1], bits[2], method)
            result.figures.append(Figure.of(name, interval, len(x), "test", dimensions=dimensions))
    sample: Any = getattr(model.likelihood, "sample", None)
    if sample is not None:  # bounds from both sides on samples of the model, whose latents are known
        z = long_run(model, min(len(x), 32), noise("simulated")).detach()
        with torch.no_grad():
            x = sample(z, noise("observation"))
        start = start_of(x, "simulated proposal")
        lower = estimate_of(x, start, settings.levels, "forward")
        # Only one exact sample per image exists. Several chains from it have the right mean weight and are
        # only less precise.
        repeated = z[:, None].expand(-1, settings.chains, -1)
        gaps = estimate_of(x, start, settings.levels, "reverse", repeated).estimate - lower.estimate
        name, split = "bracket_gap/simulated_images", "images drawn from the model"
        details = {"unit": "nats per image", "median": float(gaps.median())}
        result.figures.append(Figure.mean(name, gaps, split, **details))
    return result
