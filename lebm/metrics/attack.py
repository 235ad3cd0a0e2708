"""An attack on the latents that an encoder infers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lebm.models.encoders import DiagonalGaussian
from lebm.models.hierarchical import LatentLayout

__all__ = ["latent_attack", "layer_divergences"]


def layer_divergences(q: DiagonalGaussian, p: DiagonalGaussian, layout: LatentLayout) -> Tensor:
    """``KL(q || p)`` of every layer in nats, ``(B, L)``, for Gaussians over ``(B, layout.latent_dim)``."""
    return layout.sums(q.divergences(p))


def latent_attack(
    encoder: Callable[[Tensor], DiagonalGaussian],
    x: Tensor,
    target: Tensor,
    layout: LatentLayout,
    layer: int | None = None,
    *,
    radius: float = 0.2,
    steps: int = 50,
) -> Tensor:
    r"""Change images a little, until the encoder infers the latents of other images.

    .. math:: \min_{\tilde x} KL(q(z_i|\tilde x) \| q(z_i|x_t)), \qquad |\tilde x - x|_\infty \le r

    The method is projected descent along the sign of the gradient, with steps of ``2.5 * radius / steps``.

    Args:
        encoder: ``(B, *x) -> DiagonalGaussian``.
        x: ``(B, *x)`` in [-1, 1].
        target: ``(B, *x)``, the other images :math:`x_t`.
        layout: of the latent.
        layer: the attacked layer, 0 nearest to the data; all layers if ``None``.
        radius: r, largest change of a pixel, in the units of ``x``.
        steps: gradient steps.

    Returns:
        The attacked images, in [-1, 1], nowhere more than ``radius`` from ``x``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, target = x.clone(), target.clone()  # autograd refuses inference tensors
        with torch.no_grad():
            wanted = encoder(target)
        attacked = x
        for _ in range(steps):
            state = attacked.detach().requires_grad_(True)
            each = layer_divergences(encoder(state), wanted, layout)
            (slope,) = torch.autograd.grad((each if layer is None else each[:, layer]).sum(), state)
            moved = attacked.detach() - 2.5 * radius / steps * slope.sign()
            attacked = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(-1, 1)
    return attacked
