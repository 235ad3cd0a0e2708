"""The contract every sampler keeps, and the record of what a chain did."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.samplers.noise import RandomSource

__all__ = ["Info", "LogDensity", "Sampler", "log_density_gradient"]

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalised log-density ``(B, *event) -> (B,)``; row ``i`` of the result may depend on row ``i`` of the
input only.

One that knows a cheaper way to its gradient than autograd may have a method ``state_gradient(state) -> (B,
*event)``. """


@dataclass
class Info:
    """What a chain did. All tensors are detached and stay on the chain's device; nothing here synchronises
    with the host.

    Attributes:
        gradient_norm: ``(B,)``, norm of the gradient of the log-density at the last evaluated state.
        displacement: ``(B,)``, distance from the start to the end of the chain.
        log_density_change: ``(B,)``, unnormalised log-density at the end minus at the start.
        nonfinite: scalar, number of rows that ended non-finite.
        extra: further figures of a particular sampler; ``acceptance`` ``(B,)`` wherever there is a Metropolis
            test, real or shadowed.
    """

    gradient_norm: Tensor
    displacement: Tensor
    log_density_change: Tensor
    nonfinite: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def scalars(self) -> dict[str, Tensor]:
        """Means over the batch (a count for ``nonfinite``), ready to be logged."""
        means = {
            "gradient_norm": self.gradient_norm.mean(),
            "displacement": self.displacement.mean(),
            "log_density_change": self.log_density_change.mean(),
            "nonfinite": self.nonfinite.to(self.displacement.dtype),
        }
        return means | {name: value.float().mean() for name, value in self.extra.items()}


class Sampler(nn.Module, Component, ABC):
    """Moves one tensor under one log-density.

    ``sampler(log_density, init, generator=None)`` returns the end of the chain, detached. Gradients are taken
    with respect to the state only: parameters of the log-density never receive any, whatever the surrounding
    grad mode, and inference mode is lifted inside. Global random state is touched only if ``generator`` is
    ``None``."""

    exact: bool = False
    """Whether a transition leaves the target exactly invariant, so that long chains are unbiased."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps must be at least 0, not {steps}")
        self.steps = steps

    def forward(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource = None,
        *,
        steps: int | None = None,
    ) -> Tensor:
        """Run the chain.

        Args:
            log_density: ``(B, *event) -> (B,)``, unnormalised.
            init: ``(B, *event)`` start, floating point; it is not modified.
            generator: source of randomness.
            steps: number of transitions, the sampler's own default if ``None``.

        Returns:
            ``(B, *event)``, detached, of the dtype and device of ``init``.

        Raises:
            ValueError: if ``init`` has no event dimension or is not floating point, or the log-density does
                not return ``(B,)``.
        """
        return self._guarded(log_density, init, generator, steps, want_info=False)[0]

    def run(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource = None,
        *,
        steps: int | None = None,
    ) -> tuple[Tensor, Info]:
        """As calling the sampler, with the :class:`Info` of the chain; the same chain from the same
        randomness.
        """
        state, info = self._guarded(log_density, init, generator, steps, want_info=True)
        assert info is not None
        return state, info

    def _guarded(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource,
        steps: int | None,
        want_info: bool,
    ) -> tuple[Tensor, Info | None]:
        if init.dim() < 2 or not init.is_floating_point():
            raise ValueError(
                f"a chain starts from a floating-point tensor (B, *event), not {init.dtype} of shape"
                f" {tuple(init.shape)}"
            )
        total = self.steps if steps is None else steps
        if total < 0:
            raise ValueError(f"steps must be at least 0, not {total}")
        with torch.inference_mode(False), torch.enable_grad():
            result = self._chain(log_density, init.detach().clone(), generator, total, want_info)
        # Not unpacked before it is checked: a bare state of two rows would pass for a state and an info.
        if not (
            isinstance(result, tuple)
            and len(result) == 2
            and isinstance(result[0], Tensor)
            and result[0].shape == init.shape
            and (isinstance(result[1], Info) or (result[1] is None and not want_info))
        ):
            raise ValueError(
                f"{type(self).__name__}._chain must return a state of shape {tuple(init.shape)} and"
                f" {'an Info' if want_info else 'an Info or None'}, but returned {_kind(result)}"
            )
        state, info = result
        return state.detach(), info

    @abstractmethod
    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        """``steps`` transitions from ``start``, which is the chain's own copy; gradients are enabled."""


def _kind(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_kind(item) for item in value)})"
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def log_density_gradient(log_density: LogDensity, state: Tensor) -> tuple[Tensor, Tensor]:
    """Value ``(B,)`` and gradient ``(B, *event)`` with respect to the state only, both detached.

    The caller must have left inference mode. ``torch.autograd.grad`` computes no parameter gradients, so
    nothing needs freezing.

    Raises:
        ValueError: if the log-density does not return one number a row.
    """
    state = state.detach().requires_grad_(True)
    with torch.enable_grad():
        value = log_density(state)
    check_values(value, state)
    if not value.requires_grad:  # a constant, such as the energy of a plain reference
        return value, torch.zeros_like(state)
    (gradient,) = torch.autograd.grad(value, state, torch.ones_like(value), materialize_grads=True)
    return value.detach(), gradient


def state_gradient(log_density: LogDensity, state: Tensor) -> Tensor:
    """The gradient alone, from the log-density itself where it offers one."""
    own = getattr(log_density, "state_gradient", None)
    return log_density_gradient(log_density, state)[1] if own is None else own(state)


def check_values(value: Tensor, state: Tensor) -> None:
    """Refuse a log-density that does not return one number a row."""
    if value.shape != state.shape[:1]:
        raise ValueError(
            f"a log-density must return one number a row, shape ({state.shape[0]},), but returned"
            f" {tuple(value.shape)}"
        )


def values_of_all(log_density: LogDensity, states: Tensor) -> Tensor:
    """``(B, m)`` of ``(B, m, *event)``, one call for each of m: a log-density may carry data for its B rows."""
    values = [log_density(states[:, position]) for position in range(states.shape[1])]
    for value in values:
        check_values(value, states[:, 0])
    return torch.stack(values, dim=1)


def rows(per_row: Tensor, state: Tensor) -> Tensor:
    """Reshape ``(B,)`` so that it broadcasts against ``(B, *event)``."""
    return per_row.reshape(-1, *[1] * (state.dim() - 1))


def finite_rows(state: Tensor) -> Tensor:
    """Which rows of ``(B, *event)`` hold neither NaN nor infinity: ``(B,)`` of ``bool``."""
    return torch.isfinite(state).unsqueeze(-1).flatten(1).all(dim=1)


def as_event(per_coordinate: Tensor | None, state: Tensor) -> Tensor | None:
    """A flat vector of one number a coordinate, shaped, typed and placed like one row of ``state``."""
    if per_coordinate is None:
        return None
    if per_coordinate.numel() != state[0].numel():
        raise ValueError(
            f"the preconditioner has {per_coordinate.numel()} entries but a row of the state has"
            f" {state[0].numel()} coordinates"
        )
    return per_coordinate.to(state).reshape(state.shape[1:])


def positive_vector(name: str, entries: Sequence[float] | None) -> Tensor | None:
    """Plain numbers as a tensor ``(d,)``.

    Raises:
        ValueError: if there is none, or one is not positive and finite.
    """
    if entries is None:
        return None
    numbers = [float(entry) for entry in entries]  # looked at as numbers: a tensor may be one without memory
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{name} needs positive finite entries")
    return torch.tensor(numbers)


def summarise(
    log_density: LogDensity,
    start: Tensor,
    state: Tensor,
    gradient: Tensor | None = None,
    value: Tensor | None = None,
    extra: dict[str, Tensor] | None = None,
) -> Info:
    """The :class:`Info` of a chain from its two ends; what the sampler already knows of the last state saves
    an evaluation.
    """
    if gradient is None:
        value, gradient = log_density_gradient(log_density, state)
    with torch.no_grad():
        value = log_density(state) if value is None else value
        return Info(
            gradient_norm=gradient.flatten(1).norm(dim=1),
            displacement=(state - start).flatten(1).norm(dim=1),
            log_density_change=(value - log_density(start)).detach(),
            nonfinite=(~finite_rows(state)).sum(),
            extra=extra or {},
        )
