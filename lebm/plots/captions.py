"""Images with a line of text below each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lebm.plots.grids import image_grid

__all__ = ["captioned_grid", "heat"]

_WIDTH = 96
_LINE = 14
_GAP = 6


def heat(values: Tensor, largest: float) -> Tensor:
    """Colours of values: 0 is black, then red, yellow, and white at ``largest`` and above.

    Args:
        values: ``(B, H, W)``, at least 0.
        largest: the value that is white, above 0.

    Returns:
        ``(B, 3, H, W)`` in [-1, 1], as :func:`~lebm.plots.image_grid` takes it.

    Example:
        >>> import torch
        >>> from lebm.plots import heat
        >>> heat(torch.tensor([[[0.0, 4.0]]]), largest=4.0)[0, :, 0].tolist()
        [[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]
    """
    share = (values / largest).clamp(0, 1)
    return torch.stack([(3 * share - part).clamp(0, 1) for part in range(3)], dim=1) * 2 - 1


def captioned_grid(images: Sequence[Tensor], captions: Sequence[str], columns: int = 5) -> np.ndarray:
    """Images side by side, with a text below; the first is at the top left.

    Small images are enlarged by a whole factor. A text that is wider than its images is cut.

    Args:
        images: one or more sets ``(B, C, H, W)`` in [-1, 1]; the images of one row number stand side by side.
        captions: one text per row number.
        columns: texts per row of the picture, at least 1.

    Returns:
        ``(height, width, 3)`` of ``uint8``.

    Raises:
        ValueError: for sets of different sizes, or no image.

    Example:
        >>> import torch
        >>> from lebm.plots import captioned_grid
        >>> captioned_grid([torch.zeros(3, 1, 28, 28)], ["1.5", "2.5", "3.5"], columns=3).shape
        (138, 360, 3)
    """
    if not captions or any(len(part) != len(captions) for part in images):
        raise ValueError("every caption needs one image of each set, and there must be at least one")
    scale = max(1, -(-_WIDTH // images[0].shape[-1]))
    tiles = [_tile([part[row] for part in images], scale) for row in range(len(captions))]
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _LINE + _GAP) + _GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = _GAP + (number % columns) * (width + _GAP)
        top = _GAP + (number // columns) * (height + _LINE + _GAP)
        while len(caption) > 1 and draw.textlength(caption) > width:
            caption = caption[:-1]
        draw.text((left, top + height + 1), caption, fill="black")
        picture.paste(Image.fromarray(tile), (left, top))
    return np.asarray(picture)


def _tile(images: Sequence[Tensor], scale: int) -> np.ndarray:
    parts = [image_grid(image[None], 1).repeat(scale, 0).repeat(scale, 1) for image in images]
    return np.concatenate(parts, axis=1)
