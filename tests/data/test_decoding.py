"""Every kind of image file becomes the array it should, or is refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lebm.data.decoding import Decoding, UndecodableError
from tests.conftest import pictures, png


def decoded(**arguments: Any) -> Callable[..., np.ndarray]:
    """The decoding of one file, without the flag of its depth."""
    return lambda content: Decoding(**arguments)(content)[0]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_grey_and_colour_keep_pixels_and_channels() -> None:
    grey, colour = pictures(1, 6)[0], pictures(1, 6, 3)[0]
    np.testing.assert_array_equal(decoded()(png(grey)), grey[None])
    np.testing.assert_array_equal(decoded()(png(colour)), colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(channels=3)(png(grey)), np.repeat(grey[None], 3, axis=0))
    luma = colour @ np.array([299, 587, 114]) / 1000  # ITU-R 601, the rule of every imaging library
    assert np.abs(decoded(channels=1)(png(colour))[0] - luma).max() <= 1


def test_box_then_central_square_then_resize() -> None:
    picture = np.zeros((10, 20), dtype=np.uint8)
    picture[2:8, 5:15] = 200
    np.testing.assert_array_equal(decoded(crop=(5, 2, 15, 8))(png(picture)), np.full((1, 6, 10), 200))
    np.testing.assert_array_equal(
        decoded(image_size=3, crop=(5, 2, 15, 8))(png(picture)), np.full((1, 3, 3), 200)
    )
    ramp = np.tile(np.arange(20, dtype=np.uint8), (10, 1))
    np.testing.assert_array_equal(decoded(image_size=10)(png(ramp))[0, 0], np.arange(5, 15))


def test_odd_files() -> None:
    assert decoded(image_size=4)(png(np.full((1, 1), 7, np.uint8))).tolist() == [[[7] * 4] * 4]
    sixteen = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert decoded()(encoded(sixteen)).tolist() == [[[0, 128, 255]]]
    cmyk = Image.new("RGB", (4, 4), (255, 0, 0)).convert("CMYK")
    red = decoded()(encoded(cmyk, "TIFF"))
    assert red.shape == (3, 4, 4)
    assert red[:, 0, 0].tolist() == [255, 0, 0]
    palette = Image.new("RGB", (4, 4), (0, 0, 255)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert decoded()(encoded(palette))[:, 0, 0].tolist() == [0, 0, 255]
    assert decoded()(encoded(Image.new("1", (2, 2), 1))).tolist() == [[[255, 255], [255, 255]]]


TRANSPARENT: dict[str, tuple[Image.Image, dict, list[int]]] = {
    "colour": (Image.new("RGBA", (2, 2), (1, 2, 3, 0)), {}, [255, 255, 255]),
    "half": (Image.new("RGBA", (2, 2), (0, 0, 0, 127)), {}, [128, 128, 128]),
    "opaque": (Image.new("RGBA", (2, 2), (1, 2, 3, 255)), {}, [1, 2, 3]),
    "grey": (Image.new("LA", (2, 2), (9, 0)), {}, [255]),
    "one grey": (Image.new("L", (2, 2), 9), {"transparency": 9}, [255]),
    "one colour": (Image.new("RGB", (2, 2), (1, 2, 3)), {"transparency": (1, 2, 3)}, [255, 255, 255]),
    "palette": (Image.new("P", (2, 2), 0), {"transparency": 0}, [255, 255, 255]),
}


@pytest.mark.parametrize("case", TRANSPARENT)
def test_transparency_shows_white(case: str) -> None:
    image, options, expected = TRANSPARENT[case]
    assert decoded()(encoded(image, **options))[:, 0, 0].tolist() == expected


def named(value: object) -> str | None:
    return "file" if isinstance(value, bytes) else None


RAMP = np.arange(256).reshape(16, 16)


def deep(scale: float, kind: str, form: str = "PNG") -> bytes:
    """256 grey levels, ``scale`` apart."""
    return encoded(Image.fromarray((RAMP * scale).astype(kind)), form)


@pytest.mark.parametrize(
    ("content", "white"),
    [
        (deep(257, "uint16"), None),
        (deep(257, "uint16", "TIFF"), None),
        (deep(1, "uint16"), 255),
        (deep(16, "uint16"), 4080),
        (deep(4095 / 255, "uint16"), 4095),  # to the nearest level, as the values of the file were cut
        (deep(0.01, "float32", "TIFF"), 2.55),
        (deep(16, "uint16", "TIFF"), 4080),
        (deep(1, "int32", "TIFF"), 255),
        (deep(1e6, "int32", "TIFF"), 255e6),
        (deep(1 / 255, "float32", "TIFF"), 1),
        (deep(1, "uint8"), 4095),  # for files of more than 8 bits among those of 8
    ],
    ids=named,
)
def test_a_white_level_keeps_every_grey_level(content: bytes, white: float | None) -> None:
    np.testing.assert_array_equal(decoded(white_level=white)(content)[0], RAMP)


@pytest.mark.parametrize(
    ("content", "white", "reason"),
    [
        (deep(16, "uint16"), 255, "0 to 4080, not 0 to 255"),
        (deep(1e5, "int32", "TIFF"), None, "0 to 2.55e\\+07, not 0 to 65535"),
        (encoded(Image.fromarray((RAMP - 100).astype("int32")), "TIFF"), None, "-100 to 155"),
        (encoded(Image.fromarray(np.where(RAMP, RAMP, np.nan).astype("float32")), "TIFF"), 255, "nan"),
        (deep(1, "float32", "TIFF"), None, "floating-point numbers of unknown range: set white_level"),
    ],
    ids=named,
)
def test_pixels_out_of_range_are_refused(content: bytes, white: float | None, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decoded(white_level=white)(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (None, "empty"),
        (b"not an image at all", "not an image"),
        (png(pictures(1, 64)[0])[:1500], "truncated|Truncated"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point"),
    ],
)
def test_unusable_files_are_refused(content: bytes | None, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decoded()(content)


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UndecodableError, match="pixels"):
        decoded()(png(pictures(1, 20)[0]))


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(UndecodableError, match="outside its 6x6 pixels"):
        decoded(crop=(0, 0, 7, 6))(png(pictures(1, 6)[0]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_size": 0},
        {"channels": 2},
        {"crop": (3, 0, 3, 5)},
        {"crop": (-1, 0, 3, 5)},
        {"white_level": 0},
        {"white_level": float("nan")},
    ],
)
def test_impossible_settings(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Decoding(**arguments)
