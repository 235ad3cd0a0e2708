"""From one image file to one ``uint8`` array: colours, crop, resize, and the images that are refused."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["Decoding", "UndecodableError", "header"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""No other format is tried, whatever the name of a file is.

For some formats, such as PostScript, Pillow starts another program.
"""
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


class UndecodableError(ValueError):
    """The bytes are not an image that can be used."""


@dataclass(frozen=True)
class Decoding:
    """The steps for every image of a data set, in this order: crop, central square, resize, channels.

    Args:
        image_size: side of the square result in pixels. An image that is not square is first cut to its
            central square. ``None`` keeps the size; all images must then have the same size.
        channels: 1 (grey, by luma) or 3 (grey is repeated); ``None`` keeps the channels of the image.
        crop: a box (left, top, right, bottom) in pixels, with right and bottom exclusive.

    Raises:
        ValueError: for impossible values.
    """

    image_size: int | None = None
    channels: int | None = None
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {self.image_size}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or null (as in the files), not {self.channels}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError(
                    "crop must be (left, top, right, bottom) with 0 <= left < right and 0 <= top < bottom,"
                    f" not {self.crop}"
                )

    def __call__(self, content: bytes | str | Path | None) -> np.ndarray:
        """Decode an image to ``(C, H, W)`` ``uint8``.

        Args:
            content: the bytes of an image file, or its path.

        Raises:
            UndecodableError: if the image cannot be used; the message is a short reason.
        """
        try:
            with _opened(content) as image:
                if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                    raise UndecodableError(
                        f"{image.width}x{image.height} pixels are more than Pillow's limit"
                    )
                return self._array(ImageOps.exif_transpose(image))
        except UndecodableError:
            raise
        # For damaged files the plugins of Pillow raise many kinds, such as SyntaxError and struct.error.
        except Exception as error:
            reason = str(error).split("\n")[0]
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "not an image in a known format"
            raise UndecodableError(reason or type(error).__name__) from error

    def _array(self, image: Image.Image) -> np.ndarray:
        if self.crop is not None:
            if self.crop[2] > image.width or self.crop[3] > image.height:
                raise UndecodableError(
                    f"the crop box {self.crop} reaches outside its {image.width}x{image.height} pixels"
                )
            image = image.crop(self.crop)
        image = _eight_bit(image)
        if self.channels is not None:
            image = image.convert("L" if self.channels == 1 else "RGB")
        if self.image_size is not None:
            image = _square(image)
            if image.width != self.image_size:
                image = image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def header(content: bytes | str | Path | None) -> tuple[tuple[int, int], str] | None:
    """Width and height of an image and its mode, without decoding its pixels.

    Args:
        content: the bytes of an image file, or its path.

    Returns:
        ``None`` if it is not an image in one of the formats that are read.
    """
    try:
        with _opened(content) as image:
            return image.size, image.mode
    except Exception:  # the plugins of Pillow raise many kinds
        return None


def _opened(content: bytes | str | Path | None) -> Image.Image:
    if content is None or content == b"":
        raise UndecodableError("it is empty")
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_formats())


@cache
def _formats() -> list[str]:
    """The formats of ``FORMATS`` that this build of Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _eight_bit(image: Image.Image) -> Image.Image:
    """Mode ``L`` for grey images and ``RGB`` for all others; transparency is dropped."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I"):
        # 16-bit grey; the conversion of Pillow would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UndecodableError("its pixels are floating-point numbers without a known range")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def _square(image: Image.Image) -> Image.Image:
    side = min(image.width, image.height)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.width == image.height else image.crop((left, top, left + side, top + side))
