"""Decoded once, by one process, whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from lebm.data.cache import CachedImages, cache_folder, open_images
from lebm.errors import UserError
from tests.conftest import MakeParquet, pictures, png, write_parquet


def built(cache: Path) -> list[Path]:
    """The folders of finished splits."""
    return sorted(file.parent for file in cache.glob("images/*/*/meta.json"))


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if "unfinished" in path.name or "scratch" in path.name]


def test_parquet_rows_keep_pixels_order_and_labels(make_parquet: MakeParquet, tmp_path: Path) -> None:
    cached = open_images(
        str(make_parquet(train=11, test=5, channels=3)), "train", cache_dir=tmp_path / "cache"
    )
    np.testing.assert_array_equal(cached.images, pictures(11, channels=3, seed=0).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(cached.labels, np.arange(11) % 4)
    assert cached.label_names == ["class 0", "class 1", "class 2", "class 3"]
    assert isinstance(cached.images, np.memmap)
    assert not cached.images.flags.writeable
    assert not leftovers(tmp_path / "cache")


def test_every_kind_of_source_gives_the_same_pixels(
    make_parquet: MakeParquet, make_image_folder: MakeParquet, tmp_path: Path
) -> None:
    parquet = make_parquet(test=6, channels=3, classes=2)
    folder = make_image_folder(test=6)
    whole = open_images(str(parquet))
    single = open_images(str(parquet / "test-00000-of-00001.parquet"))
    np.testing.assert_array_equal(whole.images, single.images)
    from_files = open_images(str(folder))
    order = np.argsort(np.arange(6) % 2, kind="stable")  # class folders come one after the other
    np.testing.assert_array_equal(from_files.images, whole.images[order])
    np.testing.assert_array_equal(from_files.labels, whole.labels[order])
    one = open_images(str(folder / "test" / "class0" / "000.png"))
    np.testing.assert_array_equal(one.images[0], whole.images[0])
    assert not one.has_labels
    assert one.labels.tolist() == [-1]


def test_the_settings_are_part_of_the_key(make_parquet: MakeParquet, tmp_path: Path) -> None:
    path, cache = str(make_parquet(train=3)), tmp_path / "cache"
    shapes = [
        open_images(path, image_size=image_size, channels=channels, crop=crop, cache_dir=cache).images.shape
        for image_size, channels, crop in [
            (None, None, None),
            (4, None, None),
            (4, 3, None),
            (4, 3, (0, 0, 6, 6)),
            (4, 3, None),
        ]
    ]
    assert shapes == [(3, 1, 8, 8), (3, 1, 4, 4), (3, 3, 4, 4), (3, 3, 4, 4), (3, 3, 4, 4)]
    assert len(built(cache)) == 4


def test_datasets_is_imported_only_to_decode(
    make_parquet: MakeParquet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(make_parquet(train=5))
    first = open_images(path, cache_dir=tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it fails now
    np.testing.assert_array_equal(open_images(path, cache_dir=tmp_path / "cache").images, first.images)
    with pytest.raises(ImportError):
        open_images(path, image_size=4, cache_dir=tmp_path / "cache")


def damage_truncate(folder: Path) -> None:
    file = folder / "images.npy"
    file.write_bytes(file.read_bytes()[:-1])


def damage_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"shape": [5,')


def damage_labels(folder: Path) -> None:
    (folder / "labels.npy").unlink()


def damage_header(folder: Path) -> None:
    with open(folder / "images.npy", "r+b") as file:
        file.write(b"\0" * 16)


@pytest.mark.parametrize("damage", [damage_truncate, damage_meta, damage_labels, damage_header])
def test_a_damaged_cache_is_made_again(make_parquet: MakeParquet, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path, cache = str(make_parquet(train=5)), tmp_path / "cache"
    expected = open_images(path, cache_dir=cache).images.copy()
    (folder,) = built(cache)
    size = (folder / "images.npy").stat().st_size
    damage(folder)
    again = open_images(path, cache_dir=cache)
    np.testing.assert_array_equal(again.images, expected)
    assert len(again.labels) == 5
    assert built(cache) == [folder]
    assert (folder / "images.npy").stat().st_size == size


def test_what_a_killed_process_left_is_cleared(make_parquet: MakeParquet, tmp_path: Path) -> None:
    path, cache = str(make_parquet(train=5)), tmp_path / "cache"
    open_images(path, cache_dir=cache)
    (folder,) = built(cache)
    half = folder.with_name(f".{folder.name}.unfinished")
    folder.rename(half)  # as if killed before the rename
    assert len(open_images(path, cache_dir=cache)) == 5
    assert not leftovers(cache)


def _open_and_count(path: str, cache: str, barrier, counts) -> None:  # type: ignore[no-untyped-def]
    import lebm.data.cache as module

    inner, made = module.build, 0

    def counted(*args: object) -> None:
        nonlocal made
        made += 1
        inner(*args)  # type: ignore[arg-type]

    module.build = counted  # type: ignore[assignment]
    barrier.wait()
    cached = module.open_images(path, cache_dir=cache)
    counts.put((made, int(cached.images.sum()), len(cached)))


def test_two_processes_at_once_build_it_once(make_parquet: MakeParquet, tmp_path: Path) -> None:
    path, cache = str(make_parquet(train=300)), str(tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    barrier, counts = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_open_and_count, args=(path, cache, barrier, counts)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    results = [counts.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sorted(made for made, _, _ in results) == [0, 1]
    assert len({(total, n) for _, total, n in results}) == 1
    assert not leftovers(tmp_path / "cache")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    good = [png(picture) for picture in pictures(6)]
    images: list[bytes | None] = [good[0], b"", good[1], good[2][:60], None, good[3]]
    write_parquet(tmp_path / "damaged" / "train.parquet", images, [0, 1, 2, 3, 4, 5])
    return tmp_path / "damaged"


def test_undecodable_images_fail_by_name(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split 'train', row 1: the image cannot be used: it is empty"):
        open_images(str(damaged), cache_dir=tmp_path / "cache")
    assert not built(tmp_path / "cache")
    assert not leftovers(tmp_path / "cache")


def test_undecodable_images_are_left_out_on_request(damaged: Path, tmp_path: Path) -> None:
    for _ in range(2):  # made, then read from the cache
        with pytest.warns(
            UserWarning, match=r"left out 3 undecodable image\(s\): .*row 1: .*row 3: .*row 4: "
        ):
            cached = open_images(str(damaged), cache_dir=tmp_path / "cache", on_error="skip")
        assert cached.labels.tolist() == [0, 2, 5]
        np.testing.assert_array_equal(cached.images[:, 0], pictures(6)[[0, 1, 3]])
    with pytest.raises(UserError, match="row 1: "):
        open_images(str(damaged), cache_dir=tmp_path / "cache")


def test_a_split_of_too_small_a_range(tmp_path: Path) -> None:
    deep = [(picture.astype(np.uint16) * 16) for picture in pictures(3)]
    write_parquet(tmp_path / "data" / "train.parquet", [png(picture) for picture in deep], None)
    path, cache = str(tmp_path / "data"), tmp_path / "cache"
    line = r"split 'train', 3 images: the brightest pixel would be 16 of 255; set white_level"
    with pytest.raises(UserError, match=line):
        open_images(path, cache_dir=cache)
    assert not built(cache)
    images = open_images(path, cache_dir=cache, white_level=4095).images
    assert np.abs(images[:, 0].astype(int) - pictures(3)).max() <= 1
    # 8 bits in files of 16, and masks of 0 and 1
    for number, (scale, kind) in enumerate([(1, np.uint16), (1 / 255, np.uint8)]):
        rows = [png((picture * scale).round().astype(kind)) for picture in pictures(3)]
        write_parquet(tmp_path / f"other{number}" / "train.parquet", rows, None)
        with pytest.raises(UserError, match="the brightest pixel would be 1 of 255"):
            open_images(str(tmp_path / f"other{number}"), cache_dir=cache)
    # Dark and black images among others are what they are.
    bright = np.full((8, 8), 65535, dtype=np.uint16)
    write_parquet(tmp_path / "mixed" / "train.parquet", [png(deep[0]), png(0 * bright), png(bright)], None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = open_images(str(tmp_path / "mixed"), cache_dir=cache)
    assert mixed.images.reshape(3, -1).max(1).tolist() == [15, 0, 255]


def test_an_undecodable_file_of_a_folder_is_named(make_image_folder: MakeParquet) -> None:
    folder = make_image_folder(train=4)
    bad = folder / "train" / "class1" / "001.png"
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"class1/001\.png"):
        open_images(str(folder))


def test_images_of_different_shapes(tmp_path: Path) -> None:
    images = [png(pictures(1, 8)[0]), png(pictures(1, 1)[0])]
    write_parquet(tmp_path / "train.parquet", images, None)
    with pytest.raises(
        UserError,
        match=(
            "row 1: 1x1 pixels with 1 channel, but those before are 8x8 pixels with 1 channel; set image_size"
        ),
    ):
        open_images(str(tmp_path))
    assert open_images(str(tmp_path), image_size=8).images.shape == (2, 1, 8, 8)


def test_columns_and_labels(tmp_path: Path, make_parquet: MakeParquet) -> None:
    write_parquet(
        tmp_path / "words" / "train.parquet", [png(picture) for picture in pictures(3)], ["cat", "ant", "cat"]
    )
    words = open_images(str(tmp_path / "words"))
    assert words.label_names == ["ant", "cat"]
    assert words.labels.tolist() == [1, 0, 1]
    unlabelled = open_images(str(make_parquet("unlabelled", train=3, classes=None)))
    assert not unlabelled.has_labels
    assert unlabelled.labels.tolist() == [-1, -1, -1]
    path = str(tmp_path / "words")
    with pytest.raises(UserError, match=r"no column 'picture' \(image_column\); it has image, label"):
        open_images(path, image_column="picture")
    with pytest.raises(UserError, match=r"no column 'digit' \(label_column\)"):
        open_images(path, label_column="digit")
    with pytest.raises(UserError, match="column 'label' holds no images|cannot be used"):
        open_images(path, image_column="label")
    with pytest.raises(UserError, match="holds no class labels"):
        open_images(path, label_column="image")


def test_missing_split(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=3, test=2))
    with pytest.raises(UserError, match="no split 'extra'; it has train, test"):
        open_images(path, "extra")
    assert open_images(path).split == "test"


def test_nothing_to_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "empty" / "train.parquet", [], [])
    with pytest.raises(UserError, match="cannot be read"):
        open_images(str(tmp_path / "empty"))
    write_parquet(tmp_path / "bad" / "train.parquet", [b"", b""], [0, 1])
    with pytest.raises(UserError, match="row 0: the image cannot be used"):
        open_images(str(tmp_path / "bad"), on_error="skip")


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEBM_CACHE", str(tmp_path / "environment"))
    assert cache_folder() == tmp_path / "environment"
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the image cache .* LEBM_CACHE"):
        open_images("embedded:mnist", "test", cache_dir=tmp_path / "file" / "below")
    monkeypatch.delenv("LEBM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lebm"


def test_a_full_disk(make_parquet: MakeParquet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lebm.data.cache.build", full)
    with pytest.raises(
        UserError, match=(r"cannot write the image cache .* \(No space left on device\); set LEBM_CACHE")
    ):
        open_images(str(make_parquet(train=3)), cache_dir=tmp_path / "cache")
    assert not leftovers(tmp_path / "cache")


def test_embedded_mnist() -> None:
    splits: dict[str, CachedImages] = {
        name: open_images("embedded:mnist", name) for name in ("train", "validation", "test")
    }
    assert {name: cached.images.shape for name, cached in splits.items()} == {
        "train": (8000, 1, 28, 28),
        "validation": (1000, 1, 28, 28),
        "test": (1000, 1, 28, 28),
    }
    for cached in splits.values():
        assert np.bincount(cached.labels).tolist() == [len(cached) // 10] * 10
    rows = {name: {image.tobytes() for image in cached.images} for name, cached in splits.items()}
    assert not rows["train"] & rows["validation"]
    assert not rows["train"] & rows["test"]
    folder = Path(__file__).parents[2] / "lebm" / "data" / "embedded"
    assert sum(file.stat().st_size for file in folder.glob("*.parquet")) <= 3 * 1024 * 1024
    assert "BY-SA" in (folder / "README.md").read_text() or "ShareAlike" in (folder / "README.md").read_text()
