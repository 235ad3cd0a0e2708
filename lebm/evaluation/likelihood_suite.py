"""The likelihood suite: log p(x) of test images, and the error of the estimate on images of the model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import first_normal
from lebm.evaluation.intervals import Interval, mean_interval
from lebm.evaluation.marginal_likelihood import LatentGaussian, log_marginal, long_run, model_log_z
from lebm.evaluation.record import Figure, SuiteResult
from lebm.samplers.annealed import RELIABLE, LogZ
from lebm.samplers.noise import Noise

__all__ = ["likelihood_suite"]

CANDIDATES = 48  # posterior chains per image; annealing starts at the best one
PRIOR_CHAINS = 512


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
    for name, bound in (("below", below), ("above", above)):
        value, low, high = (float(end) for end in (bound.estimate, bound.low, bound.high))
        few = ", joined with the interval of log-normal weights" if bound.ess < RELIABLE else ""
        interval = Interval(value, low, high, f"normal, over annealed chains{few}")
        details: dict[str, Any] = {"ess": float(bound.ess), "levels": 5 * settings.levels}
        result.figures.append(Figure.of(f"log_z/{name}", interval, PRIOR_CHAINS, "prior", **details))
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
            value, low, high = (
                -(nats - dimensions * math.log(127.5)) / (dimensions * math.log(2))
                for nats in (interval.value, interval.high, interval.low)
            )
            bits = Interval(value, low, high, interval.method)
            name = f"bits_per_dimension/{name}"
            result.figures.append(Figure.of(name, bits, len(x), "test", dimensions=dimensions))
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
