"""Short-run and long-run Langevin dynamics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lebm.samplers.base import Info, LogDensity, Sampler, finish, log_density_gradient
from lebm.samplers.noise import RandomSource, normal

__all__ = ["Langevin"]

_NOISE_BUDGET = 2**22  # numbers of noise drawn at once for each row's share of a chain; bounds memory for images


class Langevin(Sampler):
    r"""Unadjusted Langevin dynamics in the papers' convention (Pang et al. 2020, eq. 8):

    .. math:: z \leftarrow z + \tfrac{s^2}{2} \nabla \log \pi(z) + n\,\epsilon, \qquad \epsilon \sim N(0, I).

    Libraries that write :math:`z + \eta \nabla \log \pi + \sqrt{2 \eta}\,\epsilon` mean the same with :math:`\eta = s^2/2`.
    The chain is biased by its step: in a Gaussian direction of precision :math:`\lambda` its stationary variance is
    :math:`1 / (\lambda (1 - \lambda s^2 / 4))`, and it diverges for :math:`s^2 \lambda \ge 4`.

    A row that becomes non-finite stays so, is counted in ``Info.nonfinite`` and never touches another row.

    Args:
        steps: number of transitions, at least 0.
        step_size: the ``s`` above, positive.
        noise_scale: the ``n`` above; ``s * sqrt(temperature)`` if ``None``. With ``n < s`` the chain samples
            ``pi ** (s / n) ** 2``, and with 0 it is gradient ascent.
        temperature: samples ``pi ** (1 / temperature)``; non-negative. Give this or ``noise_scale``, not both.
        max_grad_norm: rescale a row's gradient to at most this norm, each row by itself.
        clamp: keep the state inside ``[low, high]`` after every step, for images.
        compile: run blocks of ``unroll`` steps through ``torch.compile``. The chain is the same up to rounding.
        unroll: steps a compiled block; 10 is near the best speed and compiles in about 10 s.
        compile_mode: passed to ``torch.compile``; ``"reduce-overhead"`` uses CUDA graphs on a GPU.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        steps: int,
        step_size: float,
        noise_scale: float | None = None,
        temperature: float | None = None,
        max_grad_norm: float | None = None,
        clamp: tuple[float, float] | None = None,
        compile: bool = False,
        unroll: int = 10,
        compile_mode: str | None = None,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps must be at least 0, not {steps}")
        if not step_size > 0:
            raise ValueError(f"step_size must be positive, not {step_size}")
        if noise_scale is not None and temperature is not None:
            raise ValueError("give noise_scale or temperature, not both")
        if (noise_scale is not None and noise_scale < 0) or (temperature is not None and temperature < 0):
            raise ValueError("noise_scale and temperature must not be negative")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
        if unroll < 1:
            raise ValueError(f"unroll must be at least 1, not {unroll}")
        self.steps = steps
        self.step_size = float(step_size)
        self.noise_scale = float(noise_scale) if noise_scale is not None else step_size * (1.0 if temperature is None else temperature) ** 0.5
        self.max_grad_norm = max_grad_norm
        self.clamp = None if clamp is None else (float(clamp[0]), float(clamp[1]))
        self.unroll = unroll
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None
        if compile:
            self._compiled = torch.compile(_block, mode=compile_mode, dynamic=False)

    def _chain(
        self, log_density: LogDensity, init: Tensor, generator: RandomSource, steps: int | None, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        total = self.steps if steps is None else steps
        advance = self._eager if self._compiled is None else self._blocks
        with torch.inference_mode(False), torch.enable_grad():
            start = init.detach().clone()
            state = start.clone()
            gradient = torch.zeros_like(state)
            # The cut into draws depends on one row's size only, so that it is the same however rows are spread over processes.
            chunk = max(1, min(total, _NOISE_BUDGET // (128 * max(1, start[:1].numel()))))
            for first in range(0, total, chunk):
                count = min(chunk, total - first)
                noise = normal(generator, state.shape, steps=count, dtype=state.dtype, device=state.device).mul_(self.noise_scale)
                state, gradient = advance(log_density, state, noise)
            info = finish(log_density, start, state, gradient) if want_info else None
        return state.detach(), info

    def _eager(self, log_density: LogDensity, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        drift = 0.5 * self.step_size**2
        for kick in noise:
            _, gradient = log_density_gradient(log_density, state)
            if self.max_grad_norm is not None:
                gradient = _clip_rows(gradient, self.max_grad_norm)
            state = kick.add_(state).add_(gradient, alpha=drift)
            if self.clamp is not None:
                state = state.clamp_(*self.clamp)
        return state, gradient

    def _blocks(self, log_density: LogDensity, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        assert self._compiled is not None
        with torch.no_grad():
            for block in noise.split(self.unroll):
                state, gradient = self._compiled(log_density, state, block, 0.5 * self.step_size**2, self.max_grad_norm, self.clamp)
                state, gradient = state.clone(), gradient.clone()  # CUDA graphs reuse their output memory
        return state, gradient


def _clip_rows(gradient: Tensor, limit: float) -> Tensor:
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    factor = (limit / norm).clamp(max=1.0)
    return gradient * factor.reshape(-1, *[1] * (gradient.dim() - 1))


def _block(
    log_density: LogDensity, state: Tensor, noise: Tensor, drift: float, limit: float | None, clamp: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Several steps in one graph; noise comes from outside, because a random draw inside would break the graph."""
    slope = torch.func.grad(lambda z: log_density(z).sum())
    gradient = torch.zeros_like(state)
    for kick in noise.unbind(0):
        gradient = slope(state)
        if limit is not None:
            gradient = _clip_rows(gradient, limit)
        state = state + drift * gradient + kick
        if clamp is not None:
            state = state.clamp(*clamp)
    return state, gradient
