"""Every kind of image file becomes the array it should, or is refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lebm.data.decoding import Decoding, UndecodableError
from tests.conftest import pictures, png


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_grey_and_colour_keep_pixels_and_channels() -> None:
    grey, colour = pictures(1, 6)[0], pictures(1, 6, 3)[0]
    np.testing.assert_array_equal(Decoding()(png(grey)), grey[None])
    np.testing.assert_array_equal(Decoding()(png(colour)), colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(Decoding(channels=3)(png(grey)), np.repeat(grey[None], 3, axis=0))
    luma = colour @ np.array([299, 587, 114]) / 1000  # ITU-R 601, the rule of every imaging library
    assert np.abs(Decoding(channels=1)(png(colour))[0] - luma).max() <= 1


def test_box_then_central_square_then_resize() -> None:
    picture = np.zeros((10, 20), dtype=np.uint8)
    picture[2:8, 5:15] = 200
    np.testing.assert_array_equal(Decoding(crop=(5, 2, 15, 8))(png(picture)), np.full((1, 6, 10), 200))
    np.testing.assert_array_equal(
        Decoding(image_size=3, crop=(5, 2, 15, 8))(png(picture)), np.full((1, 3, 3), 200)
    )
    ramp = np.tile(np.arange(20, dtype=np.uint8), (10, 1))
    np.testing.assert_array_equal(Decoding(image_size=10)(png(ramp))[0, 0], np.arange(5, 15))


def test_odd_files() -> None:
    assert Decoding(image_size=4)(png(np.full((1, 1), 7, np.uint8))).tolist() == [[[7] * 4] * 4]
    sixteen = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert Decoding()(encoded(sixteen)).tolist() == [[[0, 127, 255]]]
    cmyk = Image.new("RGB", (4, 4), (255, 0, 0)).convert("CMYK")
    red = Decoding()(encoded(cmyk, "TIFF"))
    assert red.shape == (3, 4, 4)
    assert red[:, 0, 0].tolist() == [255, 0, 0]
    palette = Image.new("RGB", (4, 4), (0, 0, 255)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert Decoding()(encoded(palette))[:, 0, 0].tolist() == [0, 0, 255]
    assert Decoding()(encoded(Image.new("1", (2, 2), 1))).tolist() == [[[255, 255], [255, 255]]]
    assert Decoding()(encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 0))))[:, 0, 0].tolist() == [1, 2, 3]
    assert Decoding()(encoded(Image.new("LA", (2, 2), (9, 0)))).shape == (1, 2, 2)


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
        Decoding()(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [11, 20])  # above Pillow's warning, and above its error
def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UndecodableError, match="pixels"):
        Decoding()(png(pictures(1, side)[0]))


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(UndecodableError, match="outside its 6x6 pixels"):
        Decoding(crop=(0, 0, 7, 6))(png(pictures(1, 6)[0]))


@pytest.mark.parametrize(
    "arguments", [{"image_size": 0}, {"channels": 2}, {"crop": (3, 0, 3, 5)}, {"crop": (-1, 0, 3, 5)}]
)
def test_impossible_settings(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Decoding(**arguments)
