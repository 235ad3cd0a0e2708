"""Images and tables that are broken, mislabelled or hostile: named and refused, or left out and counted."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lebm.data import ImageData
from lebm.data.cache import open_images
from lebm.errors import UserError
from tests.conftest import pictures, png, write_parquet

GREY, COLOUR = pictures(1, 8)[0], pictures(1, 8, 3)[0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claims(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it is much larger."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "0" * 80_000_000, zip=True)
    return encoded(Image.fromarray(GREY), "PNG", pnginfo=info)


RED = Image.new("RGB", (8, 8), (255, 0, 0))
BROKEN: dict[str, bytes] = {
    "no bytes": b"",
    "truncated PNG": png(pictures(1, 64)[0])[:1500],
    "truncated JPEG": encoded(Image.fromarray(pictures(1, 64)[0]), "JPEG")[:900],
    "truncated GIF": encoded(Image.fromarray(pictures(1, 64)[0]), "GIF")[:600],
    "damaged in the middle": png(pictures(1, 64)[0])[:2000] + b"\0" * 50 + png(pictures(1, 64)[0])[2050:],
    "text called an image": b"this is no image\n" * 20,
    "a web page called an image": b"<!DOCTYPE html><html><body>404</body></html>",
    "an archive called an image": b"PK\x03\x04" + b"\0" * 100,
    "PostScript called an image": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file\nshowpage\n%%EOF\n"
    ),
    "decompression bomb": claims(60_000, 60_000),
    "beyond every memory": claims(2**31 - 1, 2**31 - 1),
    "bomb in a comment": text_bomb(),
    "no width": claims(0, 8),
    "floating-point pixels": encoded(Image.new("F", (8, 8), 0.5), "TIFF"),
    "header alone": b"\x89PNG\r\n\x1a\n",
}
USABLE: dict[str, tuple[bytes, list[int]]] = {
    "one pixel": (png(np.full((1, 1), 7, np.uint8)), [7, 7, 7]),
    "CMYK": (encoded(RED.convert("CMYK"), "TIFF"), [255, 0, 0]),
    "16 bit": (encoded(Image.fromarray(np.full((8, 8), 65535, np.uint16)), "PNG"), [255, 255, 255]),
    "palette": (encoded(RED.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), [255, 0, 0]),
    "palette with a transparent colour": (
        encoded(RED.convert("P", palette=Image.Palette.ADAPTIVE), "GIF", transparency=0),
        [255, 255, 255],
    ),
    "transparent": (encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"), [255, 255, 255]),
    "black and white": (encoded(Image.new("1", (8, 8), 1), "PNG"), [255, 255, 255]),
    "several pictures": (
        encoded(RED.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (8, 8))]),
        [255, 0, 0],
    ),
    "a JPEG called PNG": (encoded(RED, "JPEG"), [254, 0, 0]),
    "not square": (png(np.full((4, 30), 9, np.uint8)), [9, 9, 9]),
}


def pictured(folder: Path, odd: bytes) -> Path:
    """Four good images, and one odd one whose name says PNG."""
    target = folder / "data" / "train" / "class0"
    target.mkdir(parents=True)
    for number in range(4):
        (target / f"good{number}.png").write_bytes(png(COLOUR))
    (target / "odd.png").write_bytes(odd)
    return folder / "data"


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images_are_named_or_left_out(tmp_path: Path, case: str) -> None:
    path = pictured(tmp_path, BROKEN[case])
    with pytest.raises(
        UserError, match=r"odd\.png\): the image cannot be used: .*to skip it, set on_error to skip"
    ) as caught:
        open_images(str(path), image_size=8, channels=3, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.warns(UserWarning, match=r"left out 1 undecodable image\(s\): .*odd\.png"):
        images = open_images(
            str(path), image_size=8, channels=3, cache_dir=tmp_path / "cache", on_error="skip"
        )
    assert len(images) == 4
    assert len(images.skipped) == 1


@pytest.mark.parametrize("case", USABLE)
def test_unusual_images_become_what_they_show(tmp_path: Path, case: str) -> None:
    content, expected = USABLE[case]
    images = open_images(
        str(pictured(tmp_path, content)), image_size=8, channels=3, cache_dir=tmp_path / "cache"
    )
    assert len(images) == 5
    assert abs(images.images[4, :, 4, 4].astype(int) - expected).max() <= 2


def test_the_count_reaches_the_summary(tmp_path: Path) -> None:
    data = ImageData(
        str(pictured(tmp_path, b"")),
        image_size=8,
        channels=3,
        test_split=None,
        on_error="skip",
        cache_dir=str(tmp_path / "c"),
    )
    with pytest.warns(UserWarning, match="left out 1"):
        assert data.describe_split()["skipped"] == 1


def good_table(folder: Path) -> Path:
    file = folder / "data" / "train.parquet"
    write_parquet(file, [png(picture) for picture in pictures(4)], [0, 1, 0, 1])
    return file


TABLES = {
    "truncated": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-8],
    "changed in the middle": lambda content: (
        content[: len(content) // 2] + b"\xff" * 60 + content[len(content) // 2 + 60 :]
    ),
    "no bytes": lambda content: b"",
    "text called parquet": lambda content: b"not a table\n" * 50,
    "only the mark": lambda content: b"PAR1" * 3,
}


@pytest.mark.parametrize("case", TABLES)
def test_broken_tables_are_named(tmp_path: Path, case: str) -> None:
    file = good_table(tmp_path)
    file.write_bytes(TABLES[case](file.read_bytes()))
    with pytest.raises(UserError, match=f"data path '{file.parent}'") as caught:
        open_images(str(file.parent), cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_link_to_a_file_that_has_moved_is_named(tmp_path: Path) -> None:
    odd = pictured(tmp_path, b"") / "train" / "class0" / "odd.png"
    odd.unlink()
    odd.symlink_to("nowhere.png")
    with pytest.raises(OSError, match=r"odd\.png"):
        open_images(str(tmp_path / "data"), cache_dir=tmp_path / "cache")
