"""Samplers with a Metropolis test, which leave their target exactly invariant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lebm.samplers.adaptation import Adaptive
from lebm.samplers.base import (
    Info,
    LogDensity,
    as_event,
    finite_rows,
    log_density_gradient,
    positive_vector,
    rows,
    summarise,
)
from lebm.samplers.noise import RandomSource, normal, uniform

__all__ = ["HMC", "MALA"]


class HMC(Adaptive):
    r"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011): with a fresh momentum :math:`p \sim N(0, I)`,
    L leapfrog steps

    .. math:: p \leftarrow p + \tfrac{s}{2} M^{1/2} \nabla \log \pi(z), \quad z \leftarrow z + s M^{1/2} p, \quad
        p \leftarrow p + \tfrac{s}{2} M^{1/2} \nabla \log \pi(z),

    accepted with probability :math:`\min(1, e^{H_0 - H_L})`, :math:`H = -\log \pi(z) + |p|^2 / 2`. With one
    leapfrog step this is MALA of the same ``step_size`` as :class:`Langevin`. Each transition costs L
    gradients.

    A proposal whose state, log-density or gradient is not finite is rejected. A row that *starts* where its
    log-density is not finite moves at its first finite proposal, and otherwise stays. ``Info.extra``:
    ``acceptance`` ``(B,)`` in [0, 1], mean over the chain, and ``nonfinite_proposals`` ``(B,)``, a count.

    Args:
        steps: number of transitions, at least 0.
        step_size: s, positive; ``warm_up`` multiplies it by what it finds.
        leapfrog_steps: L, at least 1.
        jitter: each row's step is multiplied by a uniform number in [1 - jitter, 1 + jitter] at every
            transition, so that no trajectory closes on itself; in [0, 1).
        preconditioner: the diagonal of M, one positive number a coordinate of the flattened event.

    Raises:
        ValueError: for arguments out of range.
    """

    exact = True
    target_acceptance = 0.8
    preconditioner: Tensor | None

    def __init__(
        self,
        steps: int,
        step_size: float,
        leapfrog_steps: int = 10,
        jitter: float = 0.1,
        preconditioner: Sequence[float] | None = None,
    ) -> None:
        super().__init__(steps)
        if not step_size > 0:
            raise ValueError(f"step_size must be positive, not {step_size}")
        if leapfrog_steps < 1:
            raise ValueError(f"leapfrog_steps must be at least 1, not {leapfrog_steps}")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), not {jitter}")
        self.step_size = float(step_size)
        self.leapfrog_steps = leapfrog_steps
        self.jitter = float(jitter)
        self.register_buffer("preconditioner", positive_vector("preconditioner", preconditioner))

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        metric = as_event(self.preconditioner, start)
        base_step = torch.full(
            start.shape[1:], self.step_scale * self.step_size, dtype=start.dtype, device=start.device
        )
        if metric is not None:
            base_step = base_step * metric.sqrt()
        place = {"dtype": start.dtype, "device": start.device}
        count = start.shape[:1]
        state = start
        value, gradient = log_density_gradient(log_density, state)
        acceptance = torch.zeros(count, device=start.device)
        nonfinite = torch.zeros(count, device=start.device)
        for _ in range(steps):
            momentum = normal(generator, start.shape, **place)  # type: ignore[arg-type]
            step = base_step
            if self.jitter:
                factor = 1 + self.jitter * (2 * uniform(generator, count, **place) - 1)  # type: ignore[arg-type]
                step = step * rows(factor, start)
            proposal, turned, new_value, new_gradient = self._leapfrog(
                log_density, state, momentum, gradient, step
            )
            log_ratio = _kinetic(momentum) - _kinetic(turned) + _difference(new_value, value)
            finite = (
                finite_rows(proposal)
                & finite_rows(new_gradient)
                & torch.isfinite(new_value)
                & ~torch.isnan(log_ratio)
            )
            log_ratio = torch.where(finite, log_ratio, -torch.inf)
            chance = uniform(generator, count, dtype=torch.float32, device=start.device)
            accept = chance.log() < log_ratio
            state = torch.where(rows(accept, state), proposal, state)
            gradient = torch.where(rows(accept, state), new_gradient, gradient)
            value = torch.where(accept, new_value, value)
            acceptance += log_ratio.clamp(max=0.0).exp()
            nonfinite += ~finite
        extra = {"acceptance": acceptance / max(1, steps), "nonfinite_proposals": nonfinite}
        return state, summarise(log_density, start, state, gradient, value, extra) if want_info else None

    def _leapfrog(
        self, log_density: LogDensity, state: Tensor, momentum: Tensor, gradient: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = momentum + 0.5 * step * gradient
        for leap in range(self.leapfrog_steps):
            state = state + step * half
            value, gradient = log_density_gradient(log_density, state)
            half = half + (step if leap < self.leapfrog_steps - 1 else 0.5 * step) * gradient
        return state, half, value, gradient


class MALA(HMC):
    r"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996): the step of :class:`Langevin`,
    then a Metropolis test.

    The proposal :math:`z' = z + \tfrac{s^2}{2} M \nabla \log \pi(z) + s M^{1/2} \epsilon` is one leapfrog
    step, and HMC's acceptance is then MALA's. One gradient a transition. Non-finite proposals are rejected,
    see :class:`HMC`.

    Args:
        steps: number of transitions, at least 0.
        step_size: s, positive, as in :class:`Langevin`.
        preconditioner: the diagonal of M, one positive number a coordinate of the flattened event.
    """

    target_acceptance = 0.574

    def __init__(self, steps: int, step_size: float, preconditioner: Sequence[float] | None = None) -> None:
        super().__init__(steps, step_size, leapfrog_steps=1, jitter=0.0, preconditioner=preconditioner)


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * _precise(momentum).flatten(1).square().sum(dim=1)


def _difference(new: Tensor, old: Tensor) -> Tensor:
    """Gain in log-density; anything finite is infinitely better than a start that is not a number."""
    return _precise(new) - _precise(torch.where(torch.isnan(old), -torch.inf, old))


def _precise(value: Tensor) -> Tensor:
    """At least float32: the difference of two bf16 energies would be mostly rounding."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
