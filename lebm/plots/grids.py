"""Pictures of images in [-1, 1], and PNG files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import make_grid

from lebm.errors import at_least
from lebm.files import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAGENTA = (255, 0, 255)
_WIDTH = 96
_LINE = 14
_GAP = 6


def heat(values: Tensor, largest: float) -> Tensor:
    """Return colours of values: black at 0, then red, yellow, and white at ``largest`` and above.

    Args:
        values: non-negative values ``(B, H, W)``.
        largest: value of white, positive.

    Returns:
        Images ``(B, 3, H, W)`` in [-1, 1] for :func:`~lebm.plots.image_grid`.

    Example:
        >>> import torch
        >>> from lebm.plots import heat
        >>> heat(torch.tensor([[[0.0, 4.0]]]), largest=4.0)[0, :, 0].tolist()
        [[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]
    """
    share = (values / largest).clamp(0, 1)
    return torch.stack([(3 * share - part).clamp(0, 1) for part in range(3)], dim=1) * 2 - 1


def captioned_grid(images: Sequence[Tensor], captions: Sequence[str], columns: int = 5) -> np.ndarray:
    """Arrange images side by side with a caption below, the first at the top left.

    Small images are enlarged by an integer factor. A caption wider than its images is cut.

    Args:
        images: one or more sets ``(B, C, H, W)`` in [-1, 1]; images with the same row number are side by
            side.
        captions: one caption per row number.
        columns: captions per row of the picture, at least 1.

    Returns:
        Picture ``(height, width, 3)`` of ``uint8``.

    Raises:
        ValueError: for sets of different sizes, or without images.

    Example:
        >>> import torch
        >>> from lebm.plots import captioned_grid
        >>> captioned_grid([torch.zeros(3, 1, 28, 28)], ["1.5", "2.5", "3.5"], columns=3).shape
        (138, 360, 3)
    """
    scale = max(1, -(-_WIDTH // images[0].shape[-1]))
    shown = [torch.cat([part[row].expand(3, -1, -1) for part in images], 2) for row in range(len(captions))]
    tiles = [image_grid(image[None], 1).repeat(scale, 0).repeat(scale, 1) for image in shown]
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


def image_grid(x: Tensor, columns: int = 8) -> np.ndarray:
    """Arrange images in rows, the first at the top left.

    White lines of 2 pixels separate and surround the images, except for a single image. Values are clamped to
    [-1, 1], from black to white, without scaling single images. Non-finite pixels are magenta.

    Args:
        x: images ``(B, C, H, W)`` in [-1, 1] with one (grey) or three channels.
        columns: images per row, at least 1.

    Returns:
        Picture ``(height, width, 3)`` of ``uint8``.

    Raises:
        ValueError: for another shape, without images, or for ``columns`` below 1.

    Example:
        >>> import torch
        >>> from lebm.plots import image_grid
        >>> image_grid(torch.zeros(6, 1, 28, 28), columns=3).shape
        (62, 92, 3)
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.shape[0]:
        raise ValueError(
            f"a picture needs images of shape (B, 1 or 3, H, W) with B at least 1, not {tuple(x.shape)}"
        )
    at_least(1, columns=columns)
    x = x.detach().cpu().float()
    levels = ((x.nan_to_num().clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)
    broken = ~torch.isfinite(x).all(dim=1, keepdim=True)
    levels = torch.where(broken, torch.tensor(_MAGENTA).float().reshape(1, 3, 1, 1), levels)
    grid = make_grid(levels, nrow=min(columns, x.shape[0]), padding=2, pad_value=255)
    return grid.to(torch.uint8).permute(1, 2, 0).numpy()


def pair_grid(above: Tensor, below: Tensor, columns: int = 8) -> np.ndarray:
    """Arrange two sets of images as :func:`image_grid`, each row of the first above its row of the second.

    Args:
        above: images ``(B, C, H, W)`` in [-1, 1].
        below: images of the same shape.
        columns: images per row, at least 1.

    Example:
        >>> import torch
        >>> from lebm.plots import pair_grid
        >>> pair_grid(torch.zeros(6, 1, 28, 28), torch.ones(6, 1, 28, 28), columns=6).shape
        (62, 182, 3)
    """
    columns = min(columns, above.shape[0])
    white = above.new_ones((-above.shape[0] % columns, *above.shape[1:]))
    pairs = [torch.cat([images, white]).split(columns) for images in (above, below)]
    return image_grid(torch.cat([row for pair in zip(*pairs, strict=True) for row in pair]), columns)


def write_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write ``(height, width, 3)`` of ``uint8``, or grey ``(height, width)``, as a PNG file; return its path.

    Its folders are created. The file is replaced in one step, so a reader never sees a partial file.

    Example:
        >>> import numpy as np
        >>> from lebm.plots import write_png
        >>> write_png("pictures/black.png", np.zeros((8, 8, 3), dtype=np.uint8)).exists()
        True
    """
    path = Path(path)
    with replaced(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG")
    return path


def rendered(figure: Figure) -> np.ndarray:
    """Return the pixels of a matplotlib figure, ``(height, width, 3)`` of ``uint8``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
