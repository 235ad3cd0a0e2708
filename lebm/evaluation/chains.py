"""The chain suite: long chains from prior and posterior, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lebm.data.images import to_unit_range
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.record import Figure, SuiteResult
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.diagnostics import bulk_ess, split_rhat, tail_ess
from lebm.samplers.noise import Noise
from lebm.samplers.trace import Finding, Trace, findings, record, suggested_step

__all__ = ["CHAINS_PER_IMAGE", "ChainReport", "chain_suite", "long_chains"]

CHAINS_PER_IMAGE = 4
CHAINS, STEPS = 32, 500


@dataclass(frozen=True)
class ChainReport:
    """Long chains of one target and what they show.

    Attributes:
        trace: the chains.
        short_run: transitions that training uses.
        findings: in words, worst first.
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


def long_chains(
    target: LogDensity, sampler: Sampler, start: Tensor, noise: Noise, steps: int, targets: int = 1
) -> ChainReport:
    """Run ``start`` ``(chains, *event)`` for ``steps`` transitions, keep about a hundred states, and look at
    them.
    """
    thin = max(1, steps // 100)
    trace = record(sampler, target, start, noise, draws=steps // thin, thin=thin, targets=targets)
    step = (
        suggested_step(sampler, target, trace.states[-1], noise)
        if bool(trace.states[-1].isfinite().all())
        else None
    )
    return ChainReport(trace, sampler.steps, findings(trace, sampler.steps, step), step)


def chain_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Split R-hat, effective draws and acceptance of long chains from prior and posterior, with traces for a
    report.
    """
    model = subject.model
    result = SuiteResult(
        {"name": "long chains", "chains": CHAINS, "transitions": STEPS, "seed": settings.seed, "findings": {}}
    )
    for name in ("prior", "posterior"):
        prepared = _target(name, subject, settings)
        if isinstance(prepared, str):
            result.protocol["findings"][name] = [prepared]
            continue
        target, sampler, images = prepared
        noise = Noise.samples(settings.seed, "diagnose", index=range(CHAINS))
        report = long_chains(target, sampler, _start(model, CHAINS, noise), noise, STEPS, images)
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


def _start(model: Any, n: int, noise: Noise) -> Tensor:
    return (
        model.chain_start(n, noise)
        if hasattr(model, "chain_start")
        else model.sample_latent(n, generator=noise)
    )


def _target(name: str, subject: Subject, settings: Settings) -> tuple[LogDensity, Sampler, int] | str:
    """Target, sampler and number of targets, or why there is no chain."""
    model = subject.model
    sampler = getattr(model, f"{name}_sampler", None)
    prior = getattr(model, "prior", None)
    if name == "prior":
        if prior is None or prior.is_exact:
            return "drawn exactly, no chain to look at"
        space = getattr(model, "space", prior)
        return (space.log_density, sampler, 1) if sampler is not None else "no chain"
    if sampler is None or not callable(getattr(model, "posterior", None)):
        return "from the inference network, no chain to look at"
    images = CHAINS // CHAINS_PER_IMAGE
    x = to_unit_range(subject.images.test.images(slice(0, images))).to(device=model.device, dtype=model.dtype)
    rows = x.repeat_interleave(CHAINS_PER_IMAGE, dim=0)
    space = getattr(model, "space", None)
    target = model.posterior(rows) if space is None else space.posterior(model.likelihood.given(rows))
    return target, sampler, len(x)
