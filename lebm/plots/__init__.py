"""Pictures of tensors, as ``(height, width, 3)`` of ``uint8`` or as PNG files.

Example:
    >>> import torch
    >>> from lebm.plots import image_grid, write_png
    >>> picture = image_grid(torch.zeros(6, 1, 28, 28), columns=3)
    >>> picture.shape, str(picture.dtype)
    ((62, 92, 3), 'uint8')
    >>> write_png("samples.png", picture).name
    'samples.png'
"""

from lebm.plots.grids import captioned_grid, heat, image_grid, pair_grid, write_png
from lebm.plots.latents import draw_chains, latent_picture, stage_picture
from lebm.plots.ways import between, decoded, most_visible, swept

__all__ = [
    "between",
    "captioned_grid",
    "decoded",
    "draw_chains",
    "heat",
    "image_grid",
    "latent_picture",
    "most_visible",
    "pair_grid",
    "stage_picture",
    "swept",
    "write_png",
]
