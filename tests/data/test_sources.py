"""What a path means, and one clear line for each path that means nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import lebm.data.sources
from lebm.data.cache import open_images, split_names
from lebm.data.sources import find_source
from lebm.errors import UserError
from tests.conftest import MakeParquet


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_key_follows_content_not_place(make_parquet: MakeParquet, tmp_path: Path) -> None:
    first, same, other = make_parquet("a", train=6), make_parquet("b", train=6), make_parquet("c", train=7)
    keys = [find_source(str(folder), tmp_path).key for folder in (first, same, other)]
    assert keys[0] == keys[1] != keys[2]
    (first / "README.md").write_text("words about the data change nothing")
    assert find_source(str(first), tmp_path).key == keys[0]
    assert find_source(str(first), tmp_path, config_name="small").key != keys[0]


def test_a_change_is_seen_and_digests_are_remembered(
    make_parquet: MakeParquet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(make_parquet(train=6).iterdir())
    before = find_source(str(file), tmp_path).key
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)  # same size, same moment
    assert find_source(str(file), tmp_path).key != before

    assert not list(tmp_path.glob("digests/*"))  # the file is too young to trust its times
    monkeypatch.setattr(lebm.data.sources, "SETTLED_NS", 0)
    expected = find_source(str(file), tmp_path).key
    monkeypatch.setattr(lebm.data.sources, "_digest", lambda _: pytest.fail("read again"))
    assert find_source(str(file), tmp_path).key == expected
    time.sleep(0.02)
    os.utime(file)
    with pytest.raises(pytest.fail.Exception, match="read again"):
        find_source(str(file), tmp_path)


def test_hub_names_are_keyed_by_name_revision_and_configuration(tmp_path: Path) -> None:
    sources = [
        find_source("someone/pictures", tmp_path),
        find_source("someone/pictures", tmp_path, revision="v2"),
        find_source("someone/pictures", tmp_path, config_name="small"),
    ]
    assert len({source.key for source in sources}) == 3
    assert not any(source.is_local for source in sources)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_missing_paths(path: str) -> None:
    with pytest.raises(UserError) as error:
        open_images(path)
    assert repr(path) in one_line(error)
    assert "no such file or folder" in one_line(error)


def test_folders_and_files_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match=r"no parquet files and no images \(\.png"):
        open_images(str(tmp_path))
    with pytest.raises(UserError, match="not a parquet file and not an image"):
        open_images(str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match="it has embedded:mnist"):
        open_images("embedded:cifar")


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    for path in (tmp_path, tmp_path / "train.parquet"):
        with pytest.raises(UserError) as error:
            open_images(str(path))
        assert str(path) in one_line(error)
        assert "cannot be read" in one_line(error)


def test_a_hub_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach\n'someone/pictures' on the Hub")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(UserError) as error:
        open_images("someone/pictures", "train", cache_dir=tmp_path)
    assert "could not be downloaded" in one_line(error)
    assert "--data.init_args.path" in one_line(error)


def test_split_names(make_parquet: MakeParquet, make_image_folder: MakeParquet) -> None:
    assert set(split_names("embedded:mnist")) == {"train", "validation", "test"}
    assert split_names(str(make_parquet(train=4, test=2))) == ["train", "test"]
    assert split_names(str(make_image_folder(train=4))) == ["train"]
