"""A Metropolis test without a decision: how likely a Langevin step would have been accepted."""

from __future__ import annotations

import torch
from torch import Tensor

from lebm.samplers.base import LogDensity, log_density_gradient

__all__ = ["clip_rows", "shadow_acceptance"]


def clip_rows(gradient: Tensor, limit: float) -> Tensor:
    """Rescale each row of ``(B, *event)``, separately, to at most the Euclidean norm ``limit``."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    factor = (limit / norm).clamp(max=1.0)
    return gradient * factor.reshape(-1, *[1] * (gradient.dim() - 1))


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
    r"""Metropolis-Hastings acceptance of a Langevin step, and the log-density at its end.

    The step targets :math:`\pi^{1/T}`, where :math:`T = (n/s)^2`. It proposes from
    :math:`q(z' \mid z) = N(z + \tfrac{s^2}{2} M g(z),\, n^2 M)` with the clipped gradient g. Its acceptance
    is (Roberts & Tweedie 1996, section 1.4.1)

    .. math:: \alpha = \min\Bigl(1, \frac{\pi(z')^{1/T} q(z \mid z')}{\pi(z)^{1/T} q(z' \mid z)}\Bigr).

    Args:
        log_density: the target, :math:`\log \pi`.
        before: ``(B, *event)``, z.
        after: ``(B, *event)``, z'.
        gradient: ``(B, *event)``, the gradient used at z, already clipped.
        step_size: s.
        noise_scale: n, positive.
        max_grad_norm: largest norm of a row's gradient at z'; ``None`` does not clip.
        metric: the diagonal of M, shaped like an event; the identity if ``None``.

    Returns:
        ``(B,)`` acceptance in [0, 1], 0 where it is not finite, and ``(B,)`` log-density of ``after``.

    Example:
        >>> import torch
        >>> from lebm.samplers import shadow_acceptance
        >>> before, after = torch.zeros(1, 1), torch.ones(1, 1)
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> shadow_acceptance(normal, before, after, gradient=-before, step_size=1.0, noise_scale=1.0)
        (tensor([0.8825]), tensor([-0.5000]))
    """
    value_after, gradient_after = log_density_gradient(log_density, after)
    if max_grad_norm is not None:
        gradient_after = clip_rows(gradient_after, max_grad_norm)
    with torch.no_grad():
        difference = value_after - log_density(before)
        inverse = 1.0 if metric is None else metric.rsqrt()
        weight = 1.0 if metric is None else metric
        drift = 0.5 * step_size**2
        forward = ((after - before - drift * weight * gradient) * inverse).flatten(1).square().sum(dim=1)
        backward = (
            ((before - after - drift * weight * gradient_after) * inverse).flatten(1).square().sum(dim=1)
        )
        log_ratio = difference * (step_size / noise_scale) ** 2 + (forward - backward) / (2 * noise_scale**2)
        acceptance = log_ratio.clamp(max=0.0).exp()
        return torch.where(torch.isfinite(acceptance), acceptance, 0.0), value_after
