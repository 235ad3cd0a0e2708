"""Traces of long chains, and findings about them in words."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lebm.samplers.adaptation import Adaptive
from lebm.samplers.base import LogDensity, Sampler, finite_rows
from lebm.samplers.diagnostics import bulk_ess, split_rhat, tail_ess
from lebm.samplers.noise import RandomSource


@dataclass
class Trace:
    """States of chains at regular intervals, the start first.

    Attributes:
        states: states ``(draws + 1, chains, *event)``.
        log_density: log-densities ``(draws + 1, chains)``.
        acceptance: acceptance ``(draws, chains)`` if the sampler measures it, else ``None``.
        thin: number of transitions between two draws.
        exact: whether the sampler is exact, so that rejections cost only time.
        targets: number of targets, for example posteriors. Rows ``i k`` to ``(i + 1) k - 1`` are the k chains
            of target i.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA, record
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> trace = record(MALA(1, 1.0), normal, torch.randn(6, 2), draws=10)
        >>> trace.states.shape, trace.radius.shape, trace.settled.shape
        (torch.Size([11, 6, 2]), torch.Size([11, 6]), torch.Size([6, 6, 1, 2]))
    """

    states: Tensor
    log_density: Tensor
    acceptance: Tensor | None
    thin: int
    exact: bool = False
    targets: int = 1

    @property
    def settled(self) -> Tensor:
        """Second half of the states, ``(n, chains per target, targets, *event)``."""
        half = self.states[self.states.shape[0] // 2 :]
        return half.unflatten(1, (self.targets, -1)).transpose(1, 2)

    @property
    def rate(self) -> float | None:
        """Mean acceptance of the second half; ``None`` if the sampler measures no acceptance."""
        if self.acceptance is None:
            return None
        return float(self.acceptance[len(self.acceptance) // 2 :].double().mean())

    @property
    def radius(self) -> Tensor:
        """Root mean square of the coordinates, ``(draws + 1, chains)``: about 1 for N(0, I)."""
        return self.states.flatten(2).square().mean(dim=2).sqrt()


@dataclass(frozen=True)
class Finding:
    """A finding about a run of chains.

    Attributes:
        kind: ``"non-finite"``, ``"running away"``, ``"step too large"``, ``"step too small"``,
            ``"not mixing"``, ``"short run not settled"`` or ``"healthy"``.
        text: description with numbers and advice.

    Example:
        >>> from lebm.samplers import Finding
        >>> Finding("healthy", "no fault found").kind
        'healthy'
    """

    kind: str
    text: str


def record(
    sampler: Sampler,
    log_density: LogDensity,
    init: Tensor,
    generator: RandomSource = None,
    *,
    draws: int = 100,
    thin: int = 5,
    targets: int = 1,
) -> Trace:
    """Run long chains in pieces of ``thin`` transitions, and store the state after each piece.

    A sampler with a schedule begins its schedule again in each piece.

    Args:
        sampler: sampler of the chains.
        log_density: log-density of the target.
        init: starts ``(chains, *event)``.
        generator: source of randomness.
        draws: number of stored states after the start, at least 8.
        thin: number of transitions between stored states, at least 1.
        targets: number of targets of ``log_density``, each with the same number of neighbouring rows, at
            least 2.

    Raises:
        ValueError: for too few draws, or if the chains cannot be divided equally among the targets.

    Example:
        >>> import torch
        >>> from lebm.samplers import Langevin, record
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> trace = record(Langevin(1, 0.5), normal, torch.randn(4, 3), draws=20, thin=5)
        >>> trace.states.shape, trace.acceptance.shape
        (torch.Size([21, 4, 3]), torch.Size([20, 4]))
    """
    if draws < 8 or thin < 1:
        raise ValueError(f"a trace needs draws of at least 8 and thin of at least 1, not {draws} and {thin}")
    if init.shape[0] % targets or init.shape[0] < 2 * targets:
        raise ValueError(f"{len(init)} chains do not divide among {targets} targets, each with at least two")
    states, accepted = [init.detach().clone()], []
    for _ in range(draws):
        state, info = sampler.run(log_density, states[-1], generator, steps=thin)
        states.append(state)
        if "acceptance" in info.extra:
            accepted.append(info.extra["acceptance"])
    with torch.no_grad():
        values = torch.stack([log_density(state) for state in states])
    acceptance = torch.stack(accepted) if accepted else None
    return Trace(torch.stack(states), values, acceptance, thin, sampler.exact, targets)


def findings(
    trace: Trace, short_run: int | None = None, better_step: float | None = None, step: float | None = None
) -> list[Finding]:
    """Return the faults of the chains of a trace, worst first; one ``healthy`` finding if there are none.

    Args:
        trace: trace of a long run.
        short_run: number of transitions in training, for a comparison with the long run.
        better_step: step size found by dual averaging, mentioned in the advice if it lies on the right side
            of ``step``.
        step: step size of the chains.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA, findings, record
        >>> normal, generator = lambda z: -0.5 * z.square().sum(dim=1), torch.Generator().manual_seed(0)
        >>> start = torch.randn(8, 2, generator=generator)
        >>> trace = record(MALA(1, 5.0), normal, start, generator, draws=20, thin=2)
        >>> [finding.kind for finding in findings(trace)]
        ['step too large', 'not mixing']
    """
    finite = finite_rows(trace.states[-1])
    broken = int((~finite).sum())
    if broken:
        draws = ~torch.isfinite(trace.states.flatten(1)).all(dim=1)
        text = (
            f"{broken} of {len(finite)} chains became non-finite, the first within"
            f" {int(draws.nonzero()[0]) * trace.thin} transitions; lower the step size, clip gradients"
            " (max_grad_norm), or keep the energy smooth by weight decay or spectral norm"
        )
        return [Finding("non-finite", text)]
    steps = list(_step(trace, better_step, step))
    found = [*_running_away(trace), *steps, *_mixing(trace, bool(steps)), *_short_run(trace, short_run)]
    return found or [Finding("healthy", "no fault found: " + _summary(trace))]


def suggested_step(
    sampler: Sampler, log_density: LogDensity, init: Tensor, generator: RandomSource = None
) -> float | None:
    """Return the step size that dual averaging finds from ``init``; ``None`` if there is none.

    It exists only for samplers with a constant step size. The sampler does not change.
    """
    size = getattr(sampler, "step_size", None)
    if not isinstance(sampler, Adaptive) or not isinstance(size, float):
        return None
    before = sampler.step_scale
    try:
        sampler.warm_up(log_density, init, generator, steps=100)
        return sampler.step_scale * size
    except ValueError:  # a chain without noise has no acceptance
        return None
    finally:
        sampler.step_scale = before


def _running_away(trace: Trace) -> Iterator[Finding]:
    radius, values = trace.radius.double().mean(dim=1), trace.log_density.double()
    quarter = len(radius) // 4
    early, late = radius[quarter : 2 * quarter].mean(), radius[-quarter:].mean()
    gain = values[-quarter:].mean() - values[quarter : 2 * quarter].mean()
    if not (late < 1.2 * early or gain < 0):
        yield Finding(
            "running away",
            f"the chains move outwards while their log-density rises by {gain:.3g}: root mean square"
            f" {early:.3g} in the second quarter, {late:.3g} in the last; the energy is not bounded against"
            " its reference, so bound its slope (spectral norm, weight decay)",
        )


def _cure(larger: bool, better_step: float | None, step: float | None) -> str:
    """Return advice on a wrong step size; a suggestion on the wrong side of the step is left out."""
    now = "" if step is None else f" of {step:.3g}"
    if better_step is None or (step is not None and (better_step > step) != larger):
        return f"; {'raise' if larger else 'lower'} the step{now}"
    return f"; dual averaging suggests a step of {better_step:.3g}" + (now and f" instead{now}")


def _step(trace: Trace, better_step: float | None, step: float | None) -> Iterator[Finding]:
    rate = trace.rate
    if rate is None:
        return
    # A Langevin chain on N(0, I) with a shadow acceptance of 0.62 has a stationary distribution that is a
    # third too wide in 100 dimensions, and wider in 3 dimensions.
    if rate < (0.3 if trace.exact else 0.65):
        cost = "most steps are wasted" if trace.exact else "the chains are wider than their target"
        text = f"a Metropolis test accepts only {100 * rate:.0f}% of the steps, so {cost}"
        yield Finding("step too large", text + _cure(False, better_step, step))
    elif rate > 0.99 and float(split_rhat(trace.settled).max()) > 1.05:
        text = f"{100 * rate:.1f}% of the steps pass a Metropolis test, and the chains hardly move"
        yield Finding("step too small", text + _cure(True, better_step, step))


def _mixing(trace: Trace, wrong_step: bool) -> Iterator[Finding]:
    rhat = split_rhat(trace.settled).flatten()
    rhat = torch.where(torch.isnan(rhat), torch.inf, rhat)  # a coordinate that never moves
    if bad := int((rhat > 1.1).sum()):
        cure = "fix the step size first" if wrong_step else "take more steps, HMC, or ParallelTempering"
        yield Finding(
            "not mixing",
            f"split R-hat is above 1.1 in {bad} of {len(rhat)} coordinates, {rhat.max():.2f} at worst: the"
            f" chains have not forgotten their starts; {cure}",
        )


def _short_run(trace: Trace, short_run: int | None) -> Iterator[Finding]:
    if not short_run or short_run // trace.thin + 1 >= len(trace.log_density) // 2:
        return
    values = trace.log_density.double()
    there, later = values[round(short_run / trace.thin)], values[len(values) // 2 :]
    spread, gaps = float(later.std(dim=0).mean()), there - later.mean(dim=0)
    if not abs(gaps.mean()) < max(0.5 * spread, 4 * float(gaps.std()) / len(gaps) ** 0.5):
        yield Finding(
            "short run not settled",
            f"the mean log-density is {there.mean():.4g} after the {short_run} transitions that training"
            f" uses, {later.mean():.4g} +- {spread:.2g} later: short chains do not sample the target, as"
            " usual for short-run learning",
        )


def _summary(trace: Trace) -> str:
    settled = trace.settled
    ess = torch.minimum(bulk_ess(settled), tail_ess(settled)).min()
    rate = "" if trace.rate is None else f", acceptance {trace.rate:.2f}"
    total = settled.shape[0] * settled.shape[1]  # draws per target
    return (
        f"split R-hat at most {split_rhat(settled).max():.3f}, effective draws at least {ess:.0f} of"
        f" {total}{rate}"
    )
