"""The interface of all samplers, and the measurements of a chain."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.errors import at_least
from lebm.samplers.noise import RandomSource

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalised log-density ``(B, *event) -> (B,)``.

Row ``i`` of the result may depend on row ``i`` of the input only. A log-density may have a method
``state_gradient``, ``(B, *event) -> (B, *event)``, where its gradient costs less than by autograd.
"""


@dataclass
class Info:
    """Measurements of a chain, detached, on the chain's device.

    Attributes:
        gradient_norm: norm of the gradient of the log-density at the last state where it was evaluated,
            ``(B,)``.
        displacement: distance from the start to the end of the chain, ``(B,)``.
        log_density_change: unnormalised log-density at the end minus the log-density at the start, ``(B,)``.
        nonfinite: number of rows that are non-finite at the end, scalar.
        extra: measurements of some samplers only, such as ``acceptance`` ``(B,)`` of a real or shadow
            Metropolis test.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> _, info = MALA(steps=5, step_size=0.5).run(normal, torch.ones(4, 2))
        >>> sorted(info.scalars())
        ['acceptance', 'displacement', 'gradient_norm', 'log_density_change', 'nonfinite', ...]
    """

    gradient_norm: Tensor
    displacement: Tensor
    log_density_change: Tensor
    nonfinite: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def scalars(self) -> dict[str, Tensor]:
        """Return the means over the batch for a logger; ``nonfinite`` stays a count."""
        return {
            "gradient_norm": self.gradient_norm.mean(),
            "displacement": self.displacement.mean(),
            "log_density_change": self.log_density_change.mean(),
            "nonfinite": self.nonfinite.to(self.displacement.dtype),
            **{name: value.float().mean() for name, value in self.extra.items()},
        }


class Sampler(nn.Module, Component, ABC):
    """Base class of the samplers, which move a tensor under a log-density.

    ``sampler(log_density, init, generator=None)`` returns the end of the chain, detached. Gradients are
    computed with respect to the state only, in any surrounding grad mode and in inference mode. Global random
    state changes only if ``generator`` is ``None``. A subclass implements ``_chain``.

    Args:
        steps: default number of transitions, at least 0.

    Raises:
        ValueError: if ``steps`` is negative.

    Example:
        >>> import torch
        >>> from lebm.samplers import Langevin
        >>> sampler = Langevin(steps=10, step_size=0.5)
        >>> sampler(lambda z: -0.5 * z.square().sum(dim=1), torch.zeros(4, 2), steps=3).shape
        torch.Size([4, 2])
    """

    exact: bool = False
    """True if a transition leaves the target exactly invariant, so that long chains are unbiased."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        at_least(0, steps=steps)
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
            init: start of the chains, ``(B, *event)``, floating point; not modified.
            generator: source of randomness.
            steps: number of transitions; the sampler's default if ``None``.

        Returns:
            End of the chains, ``(B, *event)``, detached, with the dtype and device of ``init``.

        Raises:
            ValueError: if ``init`` has no event dimension or is not floating point, if ``steps`` is negative,
                or if the log-density does not return ``(B,)``.
        """
        return self.chain(log_density, init, generator, steps, want_info=False)[0]

    def run(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource = None,
        *,
        steps: int | None = None,
    ) -> tuple[Tensor, Info]:
        """Run the same chain as a call of the sampler, and also return its :class:`Info`."""
        return self.chain(log_density, init, generator, steps, want_info=True)  # type: ignore[return-value]

    def chain(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource,
        steps: int | None,
        want_info: bool,
    ) -> tuple[Tensor, Info | None]:
        """Call the sampler, or :meth:`run` if ``want_info``; for samplers that use samplers."""
        if init.dim() < 2 or not init.is_floating_point():
            raise ValueError(
                f"a chain starts from a floating-point tensor (B, *event), not {init.dtype} of shape"
                f" {tuple(init.shape)}"
            )
        total = self.steps if steps is None else steps
        at_least(0, steps=total)
        with torch.inference_mode(False), torch.enable_grad():
            result = self._chain(log_density, init.detach().clone(), generator, total, want_info)
        # Checked before unpacking, because a bare state of two rows would pass for a state and an info.
        fits = isinstance(result, tuple) and len(result) == 2 and result[0].shape == init.shape
        if not fits or (want_info and result[1] is None):
            raise ValueError(
                f"{type(self).__name__}._chain must return a state of shape {tuple(init.shape)} and an Info,"
                " or None if want_info is false"
            )
        state, info = result
        return state.detach(), info

    @abstractmethod
    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        """Run ``steps`` transitions from ``start``, a copy that may be changed; gradients are enabled."""


def log_density_gradient(log_density: LogDensity, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return value ``(B,)`` and gradient ``(B, *event)`` with respect to the state only, detached.

    The caller must have left inference mode. Parameters receive no gradients.

    Raises:
        ValueError: if the log-density does not return one number per row.

    Example:
        >>> import torch
        >>> from lebm.samplers import log_density_gradient
        >>> value, gradient = log_density_gradient(lambda z: -0.5 * z.square().sum(dim=1), torch.ones(1, 2))
        >>> value, gradient
        (tensor([-1.]), tensor([[-1., -1.]]))
    """
    state = state.detach().requires_grad_(True)
    with torch.enable_grad():
        value = evaluate(log_density, state)
    if not value.requires_grad:  # a constant, such as the energy of a plain reference
        return value, torch.zeros_like(state)
    (gradient,) = torch.autograd.grad(value, state, torch.ones_like(value), materialize_grads=True)
    return value.detach(), gradient


def state_gradient(log_density: LogDensity, state: Tensor) -> Tensor:
    """Return the gradient alone, by the log-density's ``state_gradient`` if it has one."""
    own = getattr(log_density, "state_gradient", None)
    return log_density_gradient(log_density, state)[1] if own is None else own(state)


def evaluate(log_density: LogDensity, state: Tensor) -> Tensor:
    """Return values ``(B,)``, or reject a log-density that does not return one number per row."""
    value = log_density(state)
    if value.shape != state.shape[:1]:
        raise ValueError(f"a log-density gives one number per row, ({len(state)},), not {tuple(value.shape)}")
    return value


def values_of_all(log_density: LogDensity, states: Tensor) -> Tensor:
    """Return values ``(B, m)`` of states ``(B, m, *event)``, by m calls, as the B rows may be conditioned."""
    return torch.stack([evaluate(log_density, column) for column in states.unbind(1)], dim=1)


def rows(per_row: Tensor, state: Tensor) -> Tensor:
    """Reshape ``(B,)`` so that it broadcasts against ``(B, *event)``."""
    return per_row.reshape(-1, *[1] * (state.dim() - 1))


def on_device(numbers: Sequence[float], like: Tensor) -> Tensor:
    """Copy plain numbers ``(n,)`` to the dtype and device of ``like``, without waiting for the device.

    ``torch.tensor(numbers, device=...)`` would wait for the copy, and so for all work before it.
    """
    return torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)


def precise(value: Tensor) -> Tensor:
    """Convert to at least float32, because differences of half-precision energies are mostly rounding."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def finite_rows(state: Tensor) -> Tensor:
    """Return a mask ``(B,)`` of ``bool`` of the rows of ``(B, *event)`` with finite values only.

    Example:
        >>> import torch
        >>> from lebm.samplers.base import finite_rows
        >>> finite_rows(torch.tensor([[0.0, 1.0], [0.0, torch.nan]]))
        tensor([ True, False])
    """
    return torch.isfinite(state).unsqueeze(-1).flatten(1).all(dim=1)


def summarise(
    log_density: LogDensity,
    start: Tensor,
    state: Tensor,
    gradient: Tensor | None = None,
    value: Tensor | None = None,
    extra: dict[str, Tensor] | None = None,
) -> Info:
    """Return the :class:`Info` of a chain; known ``gradient`` and ``value`` at its end save evaluations."""
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
