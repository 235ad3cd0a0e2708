"""The chain suite: long chains of prior and posterior, and faults that they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lebm.data.images import to_unit_range
from lebm.estimators.answers import ModelChain, NoChainError
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.names import CHAINS_PER_IMAGE
from lebm.evaluation.record import Figure, SuiteResult
from lebm.samplers.diagnostics import bulk_ess, split_rhat, tail_ess
from lebm.samplers.noise import Noise
from lebm.samplers.trace import Finding, Trace, findings, record, suggested_step

__all__ = ["CHAINS_PER_IMAGE", "ChainReport", "chain_suite", "long_chains", "posterior_chains"]

CHAINS, STEPS = 32, 500


@dataclass(frozen=True)
class ChainReport:
    """Long chains of one target, and the faults that they show.

    Attributes:
        trace: the chains.
        short_run: transitions that training uses.
        findings: the faults in words, worst first.
        step: a step size that dual averaging suggests, or ``None``.
    """

    trace: Trace
    short_run: int
    findings: list[Finding]
    step: float | None

    def plain(self) -> dict[str, Any]:
        """Figures and findings, tensors among them."""
        trace = self.trace
        return {
            "chains": trace.states.shape[1],
            "transitions": trace.thin * (len(trace.states) - 1),
            "short_run": self.short_run,
            "findings": [{"kind": finding.kind, "text": finding.text} for finding in self.findings],
            "split_rhat": split_rhat(trace.settled).max(),
            "bulk_ess": bulk_ess(trace.settled).min(),
            "tail_ess": tail_ess(trace.settled).min(),
            "acceptance": None if trace.acceptance is None else trace.acceptance.double().mean(),
            "suggested_step_size": self.step,
            "log_density": trace.log_density.double().mean(dim=1),
            "root_mean_square": trace.radius.double().mean(dim=1),
        }


def long_chains(chain: ModelChain, noise: Noise, steps: int, targets: int = 1) -> ChainReport:
    """Run chains for ``steps`` transitions, keep about a hundred states, and look at them.

    Args:
        chain: target, kernel and starts of the chains.
        noise: of the chains.
        steps: number of transitions.
        targets: how many target densities there are; as many neighbouring chains belong to each.
    """
    target, sampler, start = chain.target, chain.sampler, chain.start
    thin = max(1, steps // 100)
    trace = record(sampler, target, start, noise, draws=steps // thin, thin=thin, targets=targets)
    step = (
        suggested_step(sampler, target, trace.states[-1], noise)
        if bool(trace.states[-1].isfinite().all())
        else None
    )
    size = getattr(sampler, "step_size", None)
    now = size * getattr(sampler, "step_scale", 1.0) if isinstance(size, float) else None
    return ChainReport(trace, sampler.steps, findings(trace, sampler.steps, step, now), step)


def chain_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Split R-hat, effective draws and acceptance of long chains from prior and posterior, with traces for a
    report.
    """
    result = SuiteResult(
        {"name": "long chains", "chains": CHAINS, "transitions": STEPS, "seed": settings.seed, "findings": {}}
    )
    for name, prepare in (("prior", _prior_chain), ("posterior", _posterior_chain)):
        noise = Noise.samples(settings.seed, "diagnose", index=range(CHAINS))
        try:
            chain, targets = prepare(subject, noise)
        except NoChainError as reason:
            result.protocol["findings"][name] = [str(reason)]
            continue
        report = long_chains(chain, noise, STEPS, targets)
        figures = report.plain()
        result.protocol["findings"][name] = [f"{finding.kind}: {finding.text}" for finding in report.findings]
        for figure in ("split_rhat", "bulk_ess", "tail_ess", "acceptance"):
            if figures[figure] is not None:
                result.figures.append(
                    Figure.plain(f"{figure}/{name}", float(figures[figure]), CHAINS, "chains")
                )
        result.curves[name] = {
            "thin": report.trace.thin,
            "short_run": report.short_run,
            "log_density": [
                [round(float(value), 3) for value in row] for row in report.trace.log_density[:, :8].T
            ],
            "root_mean_square": [round(float(value), 4) for value in figures["root_mean_square"]],
        }
    return result


def _prior_chain(subject: Subject, noise: Noise) -> tuple[ModelChain, int]:
    return subject.model.prior_chain(CHAINS, noise), 1


def _posterior_chain(subject: Subject, noise: Noise) -> tuple[ModelChain, int]:
    """Several chains per test image, and the number of images."""
    x = to_unit_range(subject.images.test.images(slice(0, CHAINS // CHAINS_PER_IMAGE)))
    return posterior_chains(subject.model, x, noise), len(x)


def posterior_chains(model: LatentEstimator, x: Tensor, noise: Noise) -> ModelChain:
    """``CHAINS_PER_IMAGE`` posterior chains for each observation of ``x: (n, *event)``, neighbours in a row.

    Raises:
        NoChainError: if latents are inferred without a chain.
    """
    rows = model.observations({"x": x.to(model.device)}).repeat_interleave(CHAINS_PER_IMAGE, dim=0)
    return model.posterior_chain(rows, noise)
