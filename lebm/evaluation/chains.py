"""The chain suite: long chains of prior and posterior, and their faults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.settings import CHAINS_PER_IMAGE
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.diagnostics import bulk_ess, split_rhat, tail_ess
from lebm.samplers.noise import Noise
from lebm.samplers.trace import Trace, findings, record, suggested_step

__all__ = ["chain_suite", "long_chains", "posterior_chains", "prior_chains"]

CHAINS, STEPS = 32, 500


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
