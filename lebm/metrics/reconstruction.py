"""Errors of reconstructions, row by row."""

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11
"""Smallest number of pixels per side for SSIM."""


def squared_error_rows(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error of each reconstruction, mean over pixels and channels.

    Args:
        x: observations ``(B, *event)``.
        reconstruction: reconstructions of the same shape.

    Returns:
        Errors ``(B,)`` in float64.

    Example:
        >>> import torch
        >>> from lebm.metrics import squared_error_rows
        >>> squared_error_rows(torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [1, 1, 1]])).tolist()
        [0.0, 1.0]
    """
    return (x.double() - reconstruction.double()).square().flatten(1).mean(dim=1)


def reconstruction_rows(x: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    """Return error and similarity of each reconstruction, in the [-1, 1] range.

    Args:
        x: images ``(B, C, H, W)``; SSIM needs at least 11 pixels per side.
        reconstruction: reconstructions of the same shape.

    Returns:
        ``mse``, the squared error, mean over pixels and channels; ``psnr`` in decibels, for the range 2;
        ``ssim``; each ``(B,)`` of float64.

    Example:
        >>> import torch
        >>> from lebm.metrics import reconstruction_rows
        >>> rows = reconstruction_rows(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        >>> {name: round(float(value), 2) for name, value in rows.items()}
        {'mse': 1.0, 'psnr': 6.02}
    """
    error = squared_error_rows(x, reconstruction)
    x, reconstruction = x.double(), reconstruction.double()
    psnr = peak_signal_noise_ratio(reconstruction, x, data_range=2.0, reduction="none", dim=(1, 2, 3))
    values = {"mse": error, "psnr": psnr}
    if min(x.shape[2:]) >= SSIM_WINDOW:
        ssim = structural_similarity_index_measure(reconstruction, x, data_range=2.0, reduction="none")
        assert isinstance(ssim, Tensor)
        values["ssim"] = ssim
    return values
