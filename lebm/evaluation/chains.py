"""The chain suite: long chains of prior and posterior and their faults, and samples of a model in chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.settings import CHAINS_PER_IMAGE
from lebm.metrics.rows import finite_rows
from lebm.models.frozen import frozen
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import PersistentChains
from lebm.samplers.diagnostics import bulk_ess, split_rhat, tail_ess
from lebm.samplers.noise import Noise, RandomSource
from lebm.samplers.trace import Trace, findings, record, suggested_step

__all__ = [
    *("CHUNK", "chain_suite", "drawn", "has_pool", "long_chains", "pool_latents", "posterior_chains"),
    *("prior_chains", "sample_chunks"),
]

CHAINS, STEPS = 32, 500
CHUNK = 250
"""Number of samples per noise stream."""


class NoChainError(UserError):
    """An error for a chain of a model that samples without a chain."""


@dataclass(frozen=True)
class ModelChain:
    """A chain of a model.

    Attributes:
        target: the unnormalised log-density that the chain samples.
        sampler: the kernel and its length.
        start: starts of the chains, ``(chains, *event)``.
    """

    target: LogDensity
    sampler: Sampler
    start: Tensor


def long_chains(
    chain: ModelChain, noise: Noise, steps: int, targets: int = 1
) -> tuple[Trace, dict[str, Any]]:
    """Run chains for ``steps`` transitions, store about a hundred states, and search for faults.

    Each of the ``targets`` target densities has the same number of neighbouring chains.

    Returns:
        The trace, and metrics by name, some of them tensors; ``findings`` are the faults, worst first.
    """
    sampler, thin = chain.sampler, max(1, steps // 100)
    trace = record(sampler, chain.target, chain.start, noise, draws=steps // thin, thin=thin, targets=targets)
    end = trace.states[-1]
    step = suggested_step(sampler, chain.target, end, noise) if bool(end.isfinite().all()) else None
    size = getattr(sampler, "step_size", None)
    now = size * getattr(sampler, "step_scale", 1.0) if isinstance(size, float) else None
    return trace, {
        "chains": trace.states.shape[1],
        "transitions": trace.thin * (len(trace.states) - 1),
        "short_run": sampler.steps,
        "findings": [asdict(finding) for finding in findings(trace, sampler.steps, step, now)],
        "split_rhat": split_rhat(trace.settled).max(),
        "bulk_ess": bulk_ess(trace.settled).min(),
        "tail_ess": tail_ess(trace.settled).min(),
        "acceptance": None if trace.acceptance is None else trace.acceptance.double().mean(),
        "suggested_step_size": step,
        "log_density": trace.log_density.double().mean(dim=1),
        "root_mean_square": trace.radius.double().mean(dim=1),
    }


def chain_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure split R-hat, effective sample size and acceptance of long chains of prior and posterior."""
    result = SuiteResult(
        {"name": "long chains", "chains": CHAINS, "transitions": STEPS, "seed": settings.seed, "findings": {}}
    )
    model = subject.model
    x = subject.images.test.observations(slice(0, CHAINS // CHAINS_PER_IMAGE))
    for name, targets in (("prior", 1), ("posterior", len(x))):
        noise = Noise.samples(settings.seed, "diagnose", index=range(CHAINS))
        try:
            prior = name == "prior"
            chain = prior_chains(model, CHAINS, noise) if prior else posterior_chains(model, x, noise)
        except NoChainError as reason:
            result.protocol["findings"][name] = [str(reason)]
            continue
        trace, metrics = long_chains(chain, noise, STEPS, targets)
        result.protocol["findings"][name] = ["{kind}: {text}".format(**one) for one in metrics["findings"]]
        result.figures += [
            Figure.plain(f"{metric}/{name}", float(metrics[metric]), CHAINS, "chains")
            for metric in ("split_rhat", "bulk_ess", "tail_ess", "acceptance")
            if metrics[metric] is not None
        ]
        result.curves[name] = {
            "thin": trace.thin,
            "short_run": metrics["short_run"],
            "log_density": [[round(float(x), 3) for x in row] for row in trace.log_density[:, :8].T],
            "root_mean_square": [round(float(x), 4) for x in metrics["root_mean_square"]],
        }
    return result


def prior_chains(model: LatentModel, n: int, noise: Noise) -> ModelChain:
    """Return ``n`` chains of the prior, with the starts that sampling uses.

    Raises:
        NoChainError: if the prior is sampled without a chain.
    """
    if not isinstance(model, PriorModel) or model.prior.is_exact:
        raise NoChainError("the prior is sampled exactly, without a chain")
    return ModelChain(model.space.target(), model.prior_sampler, model.space.reference(n, noise))


def posterior_chains(model: LatentModel, x: Tensor, noise: Noise) -> ModelChain:
    """Return ``CHAINS_PER_IMAGE`` neighbouring posterior chains for each observation of ``x: (n, *event)``.

    They start at the reference or the prior instead of an encoder, because diagnostics need dispersed starts.

    Raises:
        NoChainError: if the model infers latents without a chain.
    """
    rows = model.observations({"x": x.to(model.device)}).repeat_interleave(CHAINS_PER_IMAGE, dim=0)
    sampler = getattr(model, "posterior_sampler", None)
    if not isinstance(sampler, Sampler):
        raise NoChainError("latents come from the encoder, without a chain")
    if isinstance(model, PriorModel):
        target, start = model.space.posterior(model.likelihood.given(rows)), model.space.reference
        return ModelChain(target, sampler, start(len(rows), noise))
    return ModelChain(model.posterior(rows), sampler, model.sample_latent(len(rows), generator=noise))


def sample_chunks(
    model: LatentModel,
    n: int,
    seed: int,
    shape: Sequence[int],
    size: int = CHUNK,
    steps: int | None = None,
    pool: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Draw ``n`` samples of the ``shape`` of the data in chunks of ``size``, each with its own noise stream.

    Args:
        model: model to sample.
        steps: length of the chain; the model's default if ``None``.
        pool: whether the prior chains of the pool of training are continued, instead of fresh chains.
        part: pair ``(k, of)``: only the chunks of part k, from 0, of this number of parts are drawn.

    Yields:
        The number of the first sample, the samples ``(B, C, H, W)``, clamped to [-1, 1], and the mask of the
        finite samples, ``(B,)`` of ``bool``.

    Raises:
        UserError: if the samples have another shape.
    """
    for chunk in range(part[0], -(-n // size), part[1]):
        first, noise = chunk * size, Noise([(seed, "fid", chunk)])
        count = min(size, n - first)
        x = drawn(model, count, noise, steps, pool)
        # Otherwise an extractor would resize them silently.
        if x.shape[1:] != tuple(shape):
            found = f"the model samples images of shape {tuple(x.shape[1:])}"
            raise UserError(f"{found}, but the data have {tuple(shape)}")
        yield first, x.float().clamp(-1, 1), finite_rows(x)


def drawn(model: LatentModel, n: int, noise: Noise, steps: int | None, pool: bool) -> Tensor:
    """Draw ``n`` samples by fresh chains, or by the pool of training."""
    if not pool:
        return model.sample(n, steps=steps, generator=noise)
    return model.observe(pool_latents(model, n, noise), generator=noise)


def has_pool(model: LatentModel) -> bool:
    """Return whether :func:`pool_latents` can draw from the model."""
    chains = getattr(model, "prior_sampler", None)
    return isinstance(chains, PersistentChains) and not chains.is_empty


def pool_latents(model: LatentModel, n: int, generator: RandomSource = None) -> Tensor:
    """Draw ``n`` latents of the prior from the pool of chains of training, ``(n, latent_dim)``.

    Rows of the pool are drawn with replacement, and each continues for the kernel's own steps.

    Raises:
        UserError: if the prior is not sampled by a :class:`~lebm.samplers.PersistentChains`, or its pool is
            empty.
    """
    if not isinstance(model, PriorModel) or not has_pool(model):
        raise UserError("prior_sampler has no pool of chains: train with PersistentChains")
    chains: Any = model.prior_sampler
    space = model.space
    with torch.inference_mode(False), torch.no_grad(), frozen(model.prior):
        start = chains.pooled(n, generator).to(model.device)
        return space.latents(chains.kernel(space.target(), start, generator))
