"""Samplers with a Metropolis test, which leave their target invariant, and the test without a decision."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lebm.errors import at_least
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.base import Info, LogDensity, finite_rows, log_density_gradient, precise, rows, summarise
from lebm.samplers.noise import RandomSource, normal, uniform


def clip_rows(gradient: Tensor, limit: float) -> Tensor:
    """Rescale each row of ``(B, *event)``, separately, to at most the Euclidean norm ``limit``."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient * rows((limit / norm).clamp(max=1.0), gradient)


def shadow_acceptance(
    log_density: LogDensity,
    before: Tensor,
    after: Tensor,
    gradient: Tensor,
    step_size: float,
    noise_scale: float,
    max_grad_norm: float | None = None,
    metric: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return the Metropolis-Hastings acceptance of a Langevin step, and the log-density at its end.

    The step targets :math:`\pi^{1/T}`, where :math:`T = (n/s)^2`. The proposal is
    :math:`q(z' \mid z) = N(z + \tfrac{s^2}{2} M g(z),\, n^2 M)` with the clipped gradient g, and its
    acceptance (Roberts & Tweedie 1996, section 1.4.1)

    .. math:: \alpha = \min\Bigl(1, \frac{\pi(z')^{1/T} q(z \mid z')}{\pi(z)^{1/T} q(z' \mid z)}\Bigr).

    ``gradient`` is the clipped gradient at ``before: (B, *event)``; the gradient at ``after`` is clipped to
    ``max_grad_norm``. ``metric`` is the diagonal of M, with the shape of an event (default: the identity).
    Both results are ``(B,)``; the acceptance is 0 if it is not finite.
    """
    value_after, gradient_after = log_density_gradient(log_density, after)
    if max_grad_norm is not None:
        gradient_after = clip_rows(gradient_after, max_grad_norm)
    with torch.no_grad():
        difference = value_after - log_density(before)
        inverse = 1.0 if metric is None else metric.rsqrt()
        weight = 1.0 if metric is None else metric
        drift = 0.5 * step_size**2
        forward = (after - before - drift * weight * gradient) * inverse
        backward = (before - after - drift * weight * gradient_after) * inverse
        forward, backward = (move.flatten(1).square().sum(dim=1) for move in (forward, backward))
        log_ratio = difference * (step_size / noise_scale) ** 2 + (forward - backward) / (2 * noise_scale**2)
        acceptance = log_ratio.clamp(max=0.0).exp()
        return torch.where(torch.isfinite(acceptance), acceptance, 0.0), value_after


class HMC(Adaptive):
    r"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011).

    A transition draws a fresh momentum :math:`p \sim N(0, I)` and takes L leapfrog steps

    .. math:: p \leftarrow p + \tfrac{s}{2} M^{1/2} \nabla \log \pi(z), \quad z \leftarrow z + s M^{1/2} p,
        \quad p \leftarrow p + \tfrac{s}{2} M^{1/2} \nabla \log \pi(z).

    It accepts the result with probability :math:`\min(1, e^{H_0 - H_L})`, where
    :math:`H = -\log \pi(z) + |p|^2 / 2`. With one leapfrog step and no jitter this is MALA with the
    ``step_size`` of :class:`Langevin`. Each transition costs L gradients.

    A proposal with a non-finite state, log-density or gradient is rejected. A row that *starts* at a
    log-density of NaN or minus infinity moves at its first finite proposal, if its gradient is finite.
    ``Info.extra`` has ``acceptance`` ``(B,)`` in [0, 1], the mean over the chain, and
    ``nonfinite_proposals`` ``(B,)``, a count.

    Args:
        steps: number of transitions, at least 0.
        step_size: step size s, positive; :meth:`warm_up` finds a factor for it.
        leapfrog_steps: number of leapfrog steps L, at least 1.
        jitter: relative half-width of the uniform distribution of each row's step size, in [0, 1), so that
            trajectories do not return to their start every time.
        preconditioner: diagonal of M, one positive number per coordinate of the flattened event.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import HMC
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> start, generator = torch.zeros(2000, 2), torch.Generator().manual_seed(0)
        >>> z = HMC(steps=10, step_size=0.5, leapfrog_steps=3)(normal, start, generator)
        >>> z.shape, round(float(z.var()), 1)
        (torch.Size([2000, 2]), 1.0)
    """

    exact = True
    target_acceptance = 0.8

    def __init__(
        self,
        steps: int,
        step_size: float,
        leapfrog_steps: int = 10,
        jitter: float = 0.1,
        preconditioner: Sequence[float] | None = None,
    ) -> None:
        super().__init__(steps, preconditioner)
        if not step_size > 0:
            raise ValueError(f"step_size must be positive, not {step_size}")
        at_least(1, leapfrog_steps=leapfrog_steps)
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be in [0, 1), not {jitter}")
        self.step_size = float(step_size)
        self.leapfrog_steps = leapfrog_steps
        self.jitter = float(jitter)

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        metric = self._metric(start)
        like: dict[str, Any] = {"dtype": start.dtype, "device": start.device}
        base_step = torch.full(start.shape[1:], self.step_scale * self.step_size, **like)
        if metric is not None:
            base_step = base_step * metric.sqrt()
        count = start.shape[:1]
        state = start
        value, gradient = log_density_gradient(log_density, state)
        acceptance = torch.zeros(count, device=start.device)
        nonfinite = torch.zeros(count, device=start.device)
        for _ in range(steps):
            momentum = normal(generator, start.shape, **like)
            step = base_step
            if self.jitter:
                factor = 1 + self.jitter * (2 * uniform(generator, count, **like) - 1)
                step = step * rows(factor, start)
            ends = self._leapfrog(log_density, state, momentum, gradient, step)
            proposal, turned, new_value, new_gradient = ends
            old = torch.where(torch.isnan(value), -torch.inf, value)  # worse than any finite value
            log_ratio = _kinetic(momentum) - _kinetic(turned) + (precise(new_value) - precise(old))
            finite = finite_rows(proposal) & finite_rows(new_gradient)
            finite = finite & torch.isfinite(new_value) & ~torch.isnan(log_ratio)
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
    r"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996).

    The proposal is the step of :class:`Langevin`,
    :math:`z' = z + \tfrac{s^2}{2} M \nabla \log \pi(z) + s M^{1/2} \epsilon`. It is one leapfrog step of
    :class:`HMC`, with the same acceptance. Each transition costs one gradient.

    Args:
        steps: number of transitions, at least 0.
        step_size: step size s, positive, as in :class:`Langevin`.
        preconditioner: diagonal of M, one positive number per coordinate of the flattened event.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> start, generator = torch.zeros(2000, 2), torch.Generator().manual_seed(0)
        >>> z, info = MALA(steps=20, step_size=1.0).run(normal, start, generator)
        >>> z.shape, round(float(info.extra["acceptance"].mean()), 1)
        (torch.Size([2000, 2]), 0.9)
    """

    target_acceptance = 0.574

    def __init__(self, steps: int, step_size: float, preconditioner: Sequence[float] | None = None) -> None:
        super().__init__(steps, step_size, leapfrog_steps=1, jitter=0.0, preconditioner=preconditioner)


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * precise(momentum).flatten(1).square().sum(dim=1)
