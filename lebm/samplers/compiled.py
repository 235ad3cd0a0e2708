"""Several steps of a chain in one graph of ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lebm.samplers.base import LogDensity, check_values
from lebm.samplers.metropolis import clip_rows
from lebm.samplers.schedules import on_device

__all__ = ["CompiledSteps"]

COMPILED_SHAPES = 8
"""Shapes of state and block for which a sampler compiles. Chains of further shapes run as they are."""

Step = Callable[..., Tensor]
Block = Callable[..., tuple[Tensor, Tensor, Tensor]]


class CompiledSteps:
    """Runs the steps of a chain in blocks, with one graph per shape.

    Args:
        step: one update, see :func:`lebm.samplers.langevin.step`.
        unroll: steps per graph.
        mode: the mode of ``torch.compile``.
    """

    def __init__(self, step: Step, unroll: int, mode: str | None) -> None:
        self.step, self.unroll, self.mode = step, unroll, mode
        self._compiled: dict[tuple[int, ...], Block] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": {}}  # compiled code cannot be pickled

    def __call__(
        self, log_density: LogDensity, state: Tensor, noise: Tensor, drifts: list[float], *settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :func:`lebm.samplers.langevin.eager_steps`."""
        # A tensor, because torch compiles a new graph for every new Python number.
        drift = on_device(drifts, state)
        with torch.no_grad():
            for block, rates in zip(noise.split(self.unroll), drift.split(self.unroll), strict=True):
                advance = self._compiled_for((len(block), *state.shape))
                outputs = advance(self.step, log_density, state, block, rates, *settings)
                # Copies, because CUDA graphs reuse the memory of their outputs.
                state, before, gradient = (output.clone() for output in outputs)
        return state, before, gradient

    def _compiled_for(self, shape: tuple[int, ...]) -> Block:
        if shape not in self._compiled:
            if len(self._compiled) == COMPILED_SHAPES:
                return _block
            self._compiled[shape] = _compile(self.mode)
        return self._compiled[shape]


def _compile(mode: str | None) -> Block:
    # torch limits the graphs of each code object to eight. With a copy, every shape has its own limit. A
    # prior of several stages needs a graph per stage.
    own = FunctionType(_block.__code__.replace(), globals(), _block.__name__)
    return torch.compile(own, mode=mode, dynamic=False)


def _block(
    step: Step,
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
        state = step(before, gradient, kick, drift, clamp, metric)
    return state, before, gradient
