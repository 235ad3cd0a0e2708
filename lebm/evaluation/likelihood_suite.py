"""The likelihood suite: log p(x) of test images, and the error of the estimate on images of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import first_normal
from lebm.evaluation.intervals import Interval, mean_interval
from lebm.evaluation.marginal_likelihood import (
    LatentGaussian,
    annealing,
    bits_per_dimension,
    log_marginal,
    long_run,
    model_log_z,
)
from lebm.evaluation.record import Figure, SuiteResult
from lebm.samplers.annealed import RELIABLE, LogZ
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["likelihood_suite"]

CANDIDATES = 48  # posterior chains per image; annealing starts at the best one
PRIOR_CHAINS = 512


def likelihood_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure log p(x) by annealed and plain importance sampling, and log Z of the prior with its error.

    Units are nats per image and bits per dimension. For dual-MCMC teaching the density belongs to the
    generator, not to the image energy.
    """
    model = subject.model
    estimator = _Estimator(model, settings)
    below, above = model_log_z(model, 5 * settings.levels, PRIOR_CHAINS, estimator.noise)
    figures = [_constant("below", below, settings), _constant("above", above, settings)]
    images = first_normal(subject.images, settings.likelihood_images, settings.seed)
    x = model.observations({"x": images.to(model.device)})
    start, dimensions = estimator.start(x, "proposal"), x[0].numel()
    for name, levels, purpose in (("ais", settings.levels, "ais"), ("importance_sampling", 1, "is")):
        estimate = estimator.estimate(x, start, levels, purpose)
        interval = _normalised(estimate, below, above)
        details = {
            "unit": "nats per image",
            "log_z": float(below.estimate),
            "median_ess": float(estimate.ess.median()),
            "chains": settings.chains,
        }
        figures.append(Figure.of(f"log_likelihood/{name}", interval, len(x), "test", **details))
        if x.dim() == 4:  # vectors have no grey levels
            ends = (interval.value, interval.high, interval.low)
            value, low, high = (bits_per_dimension(end, dimensions) for end in ends)
            bits = replace(interval, value=value, low=low, high=high)
            name = f"bits_per_dimension/{name}"
            figures.append(Figure.of(name, bits, len(x), "test", dimensions=dimensions))
    sample: Any = getattr(model.likelihood, "sample", None)
    if sample is not None:
        figures.append(estimator.gap(sample, min(len(x), 32)))
    return SuiteResult(_protocol(settings), figures)


def _protocol(settings: Settings) -> dict[str, Any]:
    return {
        "name": "bounds on log p(x)",
        "density": "of pixels in [-1, 1], observation noise included; bits count 256 grey levels",
        "levels": settings.levels,
        "chains_an_image": settings.chains,
        "kernel": "HMC, 3 leapfrog steps, step adapted to 0.8 acceptance",
        "start": (
            f"a Gaussian per image, around the best of {CANDIDATES} posterior chains, fitted to exact chains"
            " from there"
        ),
        "bound": (
            "the numerator is low on average; the subtracted log Z is the estimate from below, which makes"
            " log p(x) high; the interval is over images and reaches down to the estimate of log Z from above"
        ),
        "seed": settings.seed,
    }


@dataclass
class _Estimator:
    """Bounds for a model with the method ``posterior``; each purpose has its own noise."""

    model: Any
    settings: Settings

    def noise(self, purpose: str) -> Noise:
        return Noise([(self.settings.seed, "likelihood", purpose)])

    def start(self, x: Tensor, purpose: str) -> LatentGaussian:
        wide = x.repeat_interleave(CANDIDATES, dim=0)
        z = self.model.encode(wide, steps=self.settings.steps, generator=self.noise(purpose)).detach()
        candidates = z.reshape(len(x), CANDIDATES, -1).transpose(0, 1)
        return LatentGaussian.located(
            self.model.posterior, x, candidates, self.noise(f"{purpose} surroundings")
        )

    def estimate(
        self, x: Tensor, start: LatentGaussian, levels: int, purpose: str, posterior: Tensor | None = None
    ) -> LogZ:
        kernel, chains = annealing(levels, self.model.device), self.settings.chains
        return log_marginal(
            self.model.posterior, x, start, kernel, chains, self.noise(purpose), posterior=posterior
        )

    def gap(self, sample: Callable[[Tensor, RandomSource], Tensor], n: int) -> Figure:
        """Return the upper minus the lower bound on samples of the model, whose latents are known.

        The error of the estimates on test images may be about as large.
        """
        z = long_run(self.model, n, self.noise("simulated")).detach()
        with torch.no_grad():
            x = sample(z, self.noise("observation"))
        start = self.start(x, "simulated proposal")
        below = self.estimate(x, start, self.settings.levels, "forward")
        # Only one exact sample per image exists. Several chains from it have the right mean weight and are
        # only less precise.
        repeated = z[:, None].expand(-1, self.settings.chains, -1)
        above = self.estimate(x, start, self.settings.levels, "reverse", repeated)
        gaps = above.estimate - below.estimate
        name, split = "bracket_gap/simulated_images", "images drawn from the model"
        return Figure.mean(name, gaps, split, unit="nats per image", median=float(gaps.median()))


def _constant(name: str, bound: LogZ, settings: Settings) -> Figure:
    value, low, high = (float(end) for end in (bound.estimate, bound.low, bound.high))
    few = ", joined with the interval of log-normal weights" if bound.ess < RELIABLE else ""
    interval = Interval(value, low, high, 0.95, f"normal, over annealed chains{few}")
    details = {"ess": float(bound.ess), "levels": 5 * settings.levels}
    return Figure.of(f"log_z/{name}", interval, PRIOR_CHAINS, "prior", **details)


def _normalised(estimate: LogZ, below: LogZ, above: LogZ) -> Interval:
    """Return the mean over images minus log Z, with Student's interval widened by the interval of log Z."""
    over_images = mean_interval(estimate.estimate)
    log_z, high = float(below.estimate), max(float(below.high), float(above.high))
    half, value = over_images.high - over_images.value, over_images.value - log_z
    down, up = math.hypot(half, high - log_z), math.hypot(half, log_z - float(below.low))
    method = "Student's t over images and the interval of log Z"
    return Interval(value, value - down, value + up, over_images.level, method)
