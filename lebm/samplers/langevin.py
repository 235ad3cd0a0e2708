"""Short-run and long-run Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lebm.samplers.adaptation import Adaptive
from lebm.samplers.base import (
    Info,
    LogDensity,
    as_event,
    check_values,
    positive_vector,
    state_gradient,
    summarise,
)
from lebm.samplers.noise import RandomSource, normal
from lebm.samplers.schedules import Schedule, check_schedule, on_device, values
from lebm.samplers.shadow import clip_rows, shadow_acceptance

__all__ = ["Langevin"]

Block = Callable[..., tuple[Tensor, Tensor, Tensor]]

COMPILED_SHAPES = 8
"""Shapes of state and block for which a sampler compiles. Chains of further shapes run as they are."""

STEPS_A_DRAW = 10
"""Steps per draw of noise. One step per draw is slow; a single draw makes memory grow with the chain."""


class Langevin(Adaptive):
    r"""Unadjusted Langevin dynamics in the papers' convention (Pang et al. 2020, eq. 8).

    .. math:: z \leftarrow z + \tfrac{s^2}{2} M \nabla \log \pi(z) + n\,M^{1/2} \epsilon,
        \qquad \epsilon \sim N(0, I)

    Here ``M = I`` unless a preconditioner is given. Libraries that write
    :math:`z + \eta \nabla \log \pi + \sqrt{2 \eta}\,\epsilon` mean the same with :math:`\eta = s^2/2`. The
    step biases the chain. In a Gaussian direction of precision :math:`\lambda` its stationary variance is
    :math:`1 / (\lambda (1 - \lambda s^2 / 4))`, and it diverges for :math:`s^2 \lambda \ge 4`.

    A row that becomes non-finite stays non-finite, is counted in ``Info.nonfinite`` and never touches another
    row. ``Info.extra["acceptance"]`` is the Metropolis acceptance that the last step would have had. It is
    absent without noise, and with a clamp, because a clamped state is no draw of the proposal. ``warm_up``
    adapts ``step_scale`` to this acceptance.

    Args:
        steps: number of transitions, at least 0.
        step_size: the ``s`` above, positive, or a list with one value per step. A chain longer than the list
            continues with the last value.
        noise_scale: the ``n`` above, or a list as for ``step_size``; ``s * sqrt(temperature)`` if ``None``.
            With ``n < s`` the chain samples ``pi ** (s / n) ** 2``. With 0 it is gradient ascent.
        temperature: the chain samples ``pi ** (1 / temperature)``; non-negative; a list anneals. Give this or
            ``noise_scale``, not both.
        max_grad_norm: rescale the gradient of each row, separately, to at most this norm.
        clamp: keep the state inside ``[low, high]`` after every step, for images.
        compile: run blocks of ``unroll`` steps through ``torch.compile``. The chain is the same up to
            rounding.
        unroll: steps per compiled block. 10 is near the best speed and compiles in about 10 s; more than 10
            acts as 10.
        compile_mode: passed to ``torch.compile``; ``"reduce-overhead"`` uses CUDA graphs on a GPU.
        preconditioner: the diagonal of ``M``, one positive number per coordinate of the flattened event. Near
            the target's variances it makes all directions mix equally fast. It does not change the target.

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

    preconditioner: Tensor | None

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
        super().__init__(steps)
        if noise_scale is not None and temperature is not None:
            raise ValueError("give noise_scale or temperature, not both")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
        if clamp is not None and not clamp[0] < clamp[1]:
            raise ValueError(f"clamp must be a lower and a higher bound, not {clamp}")
        if unroll < 1:
            raise ValueError(f"unroll must be at least 1, not {unroll}")
        self.step_size = check_schedule("step_size", step_size, steps, positive=True)
        self.noise_scale = (
            None if noise_scale is None else check_schedule("noise_scale", noise_scale, steps, positive=False)
        )
        self.temperature = check_schedule(
            "temperature", 1.0 if temperature is None else temperature, steps, positive=False
        )
        self.max_grad_norm = max_grad_norm
        self.clamp = None if clamp is None else (float(clamp[0]), float(clamp[1]))
        self.unroll = unroll
        self.register_buffer("preconditioner", positive_vector("preconditioner", preconditioner))
        self.compiles, self.compile_mode = compile, compile_mode
        self._compiled: dict[tuple[int, ...], Block] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": {}}  # compiled code cannot be pickled

    def _scales(self, steps: int) -> tuple[list[float], list[float]]:
        """Step size and noise scale of every step."""
        sizes = [self.step_scale * size for size in values(self.step_size, steps)]
        if self.noise_scale is None:
            return sizes, [
                size * math.sqrt(heat)
                for size, heat in zip(sizes, values(self.temperature, steps), strict=True)
            ]
        return sizes, [self.step_scale * scale for scale in values(self.noise_scale, steps)]

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        sizes, scales = self._scales(steps)
        metric = as_event(self.preconditioner, start)
        advance = self._blocks if self.compiles else self._eager
        state, before, gradient = start, start, None
        for first in range(0, steps, STEPS_A_DRAW):
            part = slice(first, min(first + STEPS_A_DRAW, steps))
            # A copy, because a view would keep the last draw of noise in memory beside the next one.
            state = before = state.clone()
            noise = self._noise(generator, state, scales[part], metric)
            state, before, gradient = advance(
                log_density, state, noise, [0.5 * size**2 for size in sizes[part]], metric
            )
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

    def _eager(
        self,
        log_density: LogDensity,
        state: Tensor,
        noise: Tensor,
        drifts: list[float],
        metric: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        for kick, drift in zip(noise, drifts, strict=True):
            before = state
            gradient = state_gradient(log_density, before)
            if self.max_grad_norm is not None:
                gradient = clip_rows(gradient, self.max_grad_norm)
            # Written into the memory of the noise: the shadow step still needs the state before.
            state = kick.add_(before)
            state = (
                state.add_(gradient, alpha=drift)
                if metric is None
                else state.addcmul_(gradient, metric, value=drift)
            )
            if self.clamp is not None:
                state = state.clamp_(*self.clamp)
        return state, before, gradient

    def _blocks(
        self,
        log_density: LogDensity,
        state: Tensor,
        noise: Tensor,
        drifts: list[float],
        metric: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # A tensor, because torch compiles a new graph for every new Python number.
        drift = on_device(drifts, state)
        with torch.no_grad():
            for block, rates in zip(noise.split(self.unroll), drift.split(self.unroll), strict=True):
                advance = self._compiled_for((len(block), *state.shape))
                outputs = advance(log_density, state, block, rates, self.max_grad_norm, self.clamp, metric)
                # Copies, because CUDA graphs reuse the memory of their outputs.
                state, before, gradient = (output.clone() for output in outputs)
        return state, before, gradient

    def _compiled_for(self, shape: tuple[int, ...]) -> Block:
        if shape not in self._compiled:
            if len(self._compiled) == COMPILED_SHAPES:
                return _block
            self._compiled[shape] = _compile(self.compile_mode)
        return self._compiled[shape]


def _compile(mode: str | None) -> Block:
    # torch limits the graphs of each code object to eight. With a copy, every shape has its own limit. A
    # prior of several stages needs a graph per stage.
    own = FunctionType(_block.__code__.replace(), globals(), _block.__name__)
    return torch.compile(own, mode=mode, dynamic=False)


def _block(
    log_density: LogDensity,
    state: Tensor,
    noise: Tensor,
    drifts: Tensor,
    limit: float | None,
    clamp: tuple[float, float] | None,
    metric: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Several steps in one graph; the noise is an argument, because a random draw inside would break it."""

    def total(state: Tensor) -> Tensor:
        value = log_density(state)
        check_values(value, state)
        return value.sum()

    slope = torch.func.grad(total)
    before, gradient = state, torch.zeros_like(state)
    for kick, drift in zip(noise.unbind(0), drifts.unbind(0), strict=True):
        before = state
        gradient = slope(state)
        if limit is not None:
            gradient = clip_rows(gradient, limit)
        state = state + drift * (gradient if metric is None else metric * gradient) + kick
        if clamp is not None:
            state = state.clamp(*clamp)
    return state, before, gradient
