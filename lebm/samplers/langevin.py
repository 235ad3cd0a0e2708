"""Short-run and long-run Langevin dynamics."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lebm.errors import at_least
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.base import Info, LogDensity, on_device, state_gradient, summarise
from lebm.samplers.compiled import CompiledSteps
from lebm.samplers.metropolis import clip_rows, shadow_acceptance
from lebm.samplers.noise import RandomSource, normal

STEPS_A_DRAW = 10
"""Steps per call of the random generator: one step is slow, and the whole chain takes too much memory."""
Schedule = float | Sequence[float]
"""A constant, or one value per step.

A chain longer than the list continues with the last value. A shorter chain uses the beginning of the list.
"""

Moved = tuple[Tensor, Tensor, Tensor]


class Langevin(Adaptive):
    r"""Unadjusted Langevin dynamics in the convention of the papers (Pang et al. 2020, eq. 8).

    .. math:: z \leftarrow z + \tfrac{s^2}{2} M \nabla \log \pi(z) + n\,M^{1/2} \epsilon,
        \qquad \epsilon \sim N(0, I)

    ``M = I`` without a preconditioner. The convention
    :math:`z + \eta \nabla \log \pi + \sqrt{2 \eta}\,\epsilon` of other libraries is equal with
    :math:`\eta = s^2/2`. The chain is biased: in a Gaussian direction of precision :math:`\lambda` its
    stationary variance is :math:`1 / (\lambda (1 - \lambda s^2 / 4))`, and it diverges for
    :math:`s^2 \lambda \ge 4`.

    A row that becomes non-finite stays non-finite, is counted in ``Info.nonfinite`` and does not affect other
    rows. ``Info.extra["acceptance"]`` is the acceptance that a Metropolis test of the last step would have,
    to which ``warm_up`` adapts ``step_scale``. It is absent without noise or with a clamp.

    Args:
        steps: number of transitions, at least 0.
        step_size: step size ``s``, positive, or a list with one value per step, whose last value continues
            for longer chains.
        noise_scale: noise scale ``n``, or a list; ``s * sqrt(temperature)`` if ``None``. The chain samples
            ``pi ** (s / n) ** 2``; with 0 it is gradient ascent.
        temperature: temperature of the target ``pi ** (1 / temperature)``, non-negative, or a list, which
            anneals. It excludes ``noise_scale``.
        max_grad_norm: largest gradient norm per row, above which gradients are rescaled.
        clamp: bounds ``(low, high)`` of the state after every step, for images.
        compile: whether blocks of ``unroll`` steps are compiled. The chain is equal up to rounding.
        unroll: number of steps per compiled block, at most 10, which compiles in about 10 s and is near the
            best speed.
        compile_mode: mode of ``torch.compile`` (default: ``"reduce-overhead"``, CUDA graphs, on a GPU).
        preconditioner: diagonal of ``M``, one positive number per coordinate of the flattened event. All
            directions mix equally fast if it is near the variances of the target, which does not change.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import Langevin
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> chain = Langevin(steps=100, step_size=0.5)
        >>> z = chain(normal, torch.zeros(2000, 2), torch.Generator().manual_seed(0))
        >>> z.shape, round(float(z.var()), 1)  # 1 / (1 - 0.5**2 / 4) = 1.07 in theory
        (torch.Size([2000, 2]), 1.1)
    """

    def __init__(
        self,
        steps: int,
        step_size: Schedule,
        noise_scale: Schedule | None = None,
        temperature: Schedule | None = None,
        max_grad_norm: float | None = None,
        clamp: tuple[float, float] | None = None,
        compile: bool = False,
        unroll: int = 10,
        compile_mode: str | None = None,
        preconditioner: Sequence[float] | None = None,
    ) -> None:
        super().__init__(steps, preconditioner)
        if noise_scale is not None and temperature is not None:
            raise ValueError("give noise_scale or temperature, not both")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
        if clamp is not None and not clamp[0] < clamp[1]:
            raise ValueError(f"clamp must be a lower and a higher bound, not {clamp}")
        at_least(1, unroll=unroll)
        self.step_size = check_schedule("step_size", step_size, steps, positive=True)
        self.noise_scale = None if noise_scale is None else check_schedule("noise_scale", noise_scale, steps)
        self.temperature = check_schedule("temperature", 1.0 if temperature is None else temperature, steps)
        self.max_grad_norm = max_grad_norm
        self.clamp = None if clamp is None else (float(clamp[0]), float(clamp[1]))
        self._advance = CompiledSteps(advance, unroll, compile_mode) if compile else eager_steps

    def _scales(self, steps: int) -> tuple[list[float], list[float]]:
        sizes = [self.step_scale * size for size in values(self.step_size, steps)]
        if self.noise_scale is not None:
            return sizes, [self.step_scale * scale for scale in values(self.noise_scale, steps)]
        heats = values(self.temperature, steps)
        return sizes, [size * math.sqrt(heat) for size, heat in zip(sizes, heats, strict=True)]

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        sizes, scales = self._scales(steps)
        metric = self._metric(start)
        state, before, gradient = start, start, None
        for first in range(0, steps, STEPS_A_DRAW):
            part = slice(first, min(first + STEPS_A_DRAW, steps))
            # A copy, because a view would keep the last noise in memory beside the next.
            state = before = state.clone()
            noise = self._noise(generator, state, scales[part], metric)
            drifts = [0.5 * size**2 for size in sizes[part]]
            settings = self.max_grad_norm, self.clamp, metric
            state, before, gradient = self._advance(log_density, state, noise, drifts, *settings)
            del noise
        info = None
        if want_info:
            extra, value = {}, None
            if gradient is not None and scales[-1] > 0 and self.clamp is None:
                extra["acceptance"], value = shadow_acceptance(
                    log_density, before, state, gradient, sizes[-1], scales[-1], self.max_grad_norm, metric
                )
            info = summarise(log_density, start, state, gradient, value, extra)
        return state, info

    @staticmethod
    def _noise(generator: RandomSource, state: Tensor, scales: list[float], metric: Tensor | None) -> Tensor:
        noise = normal(generator, state.shape, steps=len(scales), dtype=state.dtype, device=state.device)
        if len(set(scales)) == 1:
            noise.mul_(scales[0])
        else:
            noise.mul_(on_device(scales, noise).reshape(-1, *[1] * state.dim()))
        return noise if metric is None else noise.mul_(metric.sqrt())


def check_schedule(name: str, schedule: Schedule, steps: int, *, positive: bool = False) -> Schedule:
    """Return the schedule as plain floats."""
    scheduled = isinstance(schedule, Sequence)
    entries = [float(value) for value in schedule] if isinstance(schedule, Sequence) else [float(schedule)]
    if not entries or (scheduled and len(entries) > steps):
        raise ValueError(f"{name} has {len(entries)} entries, but a schedule needs 1 to {steps}, the steps")
    if any(not (value > 0 if positive else value >= 0) for value in entries):
        raise ValueError(f"{name} must {'be positive' if positive else 'not be negative'}, not {schedule}")
    return entries if scheduled else entries[0]


def values(schedule: Schedule, steps: int) -> list[float]:
    """Return the value at each of ``steps`` steps."""
    if not isinstance(schedule, Sequence):
        return [schedule] * steps
    return [schedule[min(step, len(schedule) - 1)] for step in range(steps)]


def advance(
    slope: LogDensity,
    state: Tensor,
    kicks: Iterable[Tensor],
    drifts: Iterable[float | Tensor],
    limit: float | None,
    clamp: tuple[float, float] | None,
    metric: Tensor | None,
) -> Moved:
    r"""Take one step :math:`z + \tfrac{s^2}{2} M g + n M^{1/2} \epsilon` per kick.

    ``slope`` gives g, ``kicks`` are the terms :math:`n M^{1/2} \epsilon`, ``(B, *event)`` each, and
    ``drifts`` the factors ``s^2 / 2``. ``limit`` is the largest norm of a row of g, ``clamp`` bounds new
    states, and ``metric`` is the diagonal of M, with the shape of an event.

    Returns:
        The last state, the state before the last step, and the clipped gradient at the latter.
    """
    before = gradient = state
    for kick, drift in zip(kicks, drifts, strict=True):
        before, gradient = state, slope(state)
        if limit is not None:
            gradient = clip_rows(gradient, limit)
        uphill = gradient if metric is None else metric * gradient
        moved = kick + before
        # The fused form is faster but needs a Python number.
        state = moved + drift * uphill if isinstance(drift, Tensor) else torch.add(moved, uphill, alpha=drift)
        state = state if clamp is None else state.clamp(*clamp)
    return state, before, gradient


def eager_steps(
    log_density: LogDensity, state: Tensor, noise: Tensor, drifts: list[float], *settings: Any
) -> Moved:
    """Run :func:`advance` for ``noise: (steps, B, *event)`` without compilation."""
    return advance(partial(state_gradient, log_density), state, noise, drifts, *settings)
