"""Decoding of an image file to a ``uint8`` array: colours, crop, resize, and rejected images."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The only formats that are tried, because Pillow starts other programs for some, such as PostScript."""
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


class UndecodableError(ValueError):
    """An error for bytes that are not a usable image."""


@dataclass(frozen=True)
class Decoding:
    """The steps for every image of a data set, in order: crop, central square, resize, channels.

    Transparent pixels become white. The arguments are as in :class:`~lebm.data.ImageData`. A ``white_level``
    below 255 also applies to files of 8 bits.
    """

    image_size: int | None = None
    channels: int | None = None
    crop: tuple[int, int, int, int] | None = None
    white_level: float | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {self.image_size}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or null (as in the files), not {self.channels}")
        if self.white_level is not None and not 0 < self.white_level < math.inf:
            raise ValueError(f"white_level must be above 0, not {self.white_level}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                wanted = "(left, top, right, bottom) with 0 <= left < right and 0 <= top < bottom"
                raise ValueError(f"crop must be {wanted}, not {self.crop}")

    def __call__(self, content: bytes | str | None) -> tuple[np.ndarray, bool]:
        """Decode the bytes of an image file, or the file at a path.

        Returns:
            The image as ``(C, H, W)`` ``uint8``, and whether its file has more than 8 bits per number.
        """
        try:
            with _opened(content) as image:
                return self._array(ImageOps.exif_transpose(image))
        # For damaged files Pillow raises many kinds of errors, such as SyntaxError and struct.error.
        except Exception as error:
            reason = str(error).split("\n")[0]
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "not an image in a known format"
            raise UndecodableError(reason or type(error).__name__) from error

    def _array(self, image: Image.Image) -> tuple[np.ndarray, bool]:
        if self.crop is not None:
            if self.crop[2] > image.width or self.crop[3] > image.height:
                size = f"{image.width}x{image.height}"
                raise UndecodableError(f"the crop box {self.crop} reaches outside its {size} pixels")
            image = image.crop(self.crop)
        image, deep = self._eight_bit(image)
        if self.channels is not None:
            image = image.convert("L" if self.channels == 1 else "RGB")
        if self.image_size is not None:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.crop((left, top, left + side, top + side))
            image = square.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)), deep

    def _eight_bit(self, image: Image.Image) -> tuple[Image.Image, bool]:
        """Return mode ``L`` for grey images and ``RGB`` for others; Pillow reads 8 bits of 16-bit colours."""
        deep = image.mode[0] in "IF"
        if image.mode == "F" and self.white_level is None:
            raise UndecodableError("its pixels are floating-point numbers of unknown range: set white_level")
        if not deep:
            mode = "L" if image.mode in GREY_MODES else "RGB"
            if image.has_transparency_data:  # on white
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert(mode)
        white = self.white_level or 65535 if deep else min(self.white_level or 255, 255)
        pixels = np.asarray(image)
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= white):  # NaN is rejected too
            raise UndecodableError(f"its pixels are {low:g} to {high:g}, not 0 to {white:g}; set white_level")
        if white != 255:
            image = Image.fromarray(np.rint(pixels.astype(np.float64) * 255 / white).astype(np.uint8))
        return image, deep


def content_of(item: Mapping[str, Any] | None) -> bytes | str | None:
    """Return the bytes of an undecoded image of ``datasets``, or else the path of its file."""
    item = item or {}
    return item.get("path") if item.get("bytes") is None else item["bytes"]


def header(content: bytes | str | None) -> tuple[tuple[int, int], str] | None:
    """Return width, height and mode of an image without decoding its pixels; ``None`` if it is not one."""
    try:
        with _opened(content) as image:
            return image.size, image.mode
    except Exception:  # Pillow raises many kinds of errors
        return None


def _opened(content: bytes | str | None) -> Image.Image:
    if content is None or content == b"":
        raise UndecodableError("it is empty")
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)
