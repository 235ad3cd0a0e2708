"""Compilation of several steps of a chain into one graph by ``torch.compile``."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lebm.samplers.base import LogDensity, evaluate, on_device

COMPILED_SHAPES = 8
"""Largest number of shapes for which a sampler compiles; chains of further shapes run uncompiled."""

Steps = Callable[..., tuple[Tensor, Tensor, Tensor]]


class CompiledSteps:
    """Blocks of ``unroll`` updates :func:`lebm.samplers.langevin.advance`, with one graph per shape."""

    def __init__(self, steps: Steps, unroll: int, mode: str | None) -> None:
        self.steps, self.unroll, self.mode = steps, unroll, mode
        self._compiled: dict[tuple[int, ...], Steps] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": {}}  # compiled code cannot be pickled

    def __call__(
        self, log_density: LogDensity, state: Tensor, noise: Tensor, drifts: list[float], *settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the steps as :func:`lebm.samplers.langevin.eager_steps`."""
        # A tensor, because torch compiles a graph for every new Python number.
        drift = on_device(drifts, state)
        with torch.no_grad():
            for block, rates in zip(noise.split(self.unroll), drift.split(self.unroll), strict=True):
                run = self._compiled_for((len(block), *state.shape), state.device)
                outputs = run(self.steps, log_density, state, block, rates, *settings)
                # Copies, because CUDA graphs reuse the memory of their outputs.
                state, before, gradient = (output.clone() for output in outputs)
        return state, before, gradient

    def _compiled_for(self, shape: tuple[int, ...], device: torch.device) -> Steps:
        if shape not in self._compiled:
            if len(self._compiled) == COMPILED_SHAPES:
                return _block
            # torch limits each code object to eight graphs, and a prior of several stages needs a graph per
            # stage, so every shape gets its own copy.
            own = FunctionType(_block.__code__.replace(), globals(), _block.__name__)
            mode = self.mode or ("reduce-overhead" if device.type == "cuda" else "default")
            self._compiled[shape] = torch.compile(own, mode=mode, dynamic=False)
        return self._compiled[shape]


def _block(
    steps: Steps, log_density: LogDensity, state: Tensor, noise: Tensor, drifts: Tensor, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run several steps in one graph, with the noise as an argument, because random numbers break a graph."""
    slope = torch.func.grad(lambda state: evaluate(log_density, state).sum())
    return steps(slope, state, noise.unbind(0), drifts.unbind(0), *settings)
