"""What a path means, and one clear line for each path that means nothing."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from lebm.data.cache import open_images, split_names
from lebm.data.sources import find_source, is_own, located
from lebm.errors import UserError
from tests.conftest import MakeParquet, pictures, png, write_parquet


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_key_follows_the_files_and_not_the_place(make_parquet: MakeParquet, tmp_path: Path) -> None:
    folder, other = make_parquet("a", train=6), make_parquet("b", train=6)
    before = find_source(str(folder)).key
    assert find_source(str(other)).key != before
    (folder / "README.md").write_text("words about the data change nothing")
    folder.rename(tmp_path / "moved")
    assert find_source(str(tmp_path / "moved")).key == before


@pytest.mark.parametrize("change", ["content", "name", "metadata", "another file"])
def test_a_change_of_the_files_is_seen(make_image_folder: MakeParquet, change: str) -> None:
    folder = make_image_folder(train=6)
    file = min(folder.rglob("*.png"))
    before, stat = find_source(str(folder)).key, file.stat()
    if change == "content":  # of the same size, and the time of the change put back
        file.write_bytes(bytes(stat.st_size))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "name":
        file.rename(file.with_name("z.png"))
    elif change == "metadata":
        (folder / "metadata.csv").write_text("file_name\n")
    else:
        file.with_name("z.png").write_bytes(b"")
    assert find_source(str(folder)).key != before


def test_hub_names_are_keyed_by_name_revision_and_configuration() -> None:
    sources = [
        find_source("someone/pictures"),
        find_source("someone/pictures", revision="v2"),
        find_source("someone/pictures", config_name="small"),
    ]
    assert len({source.key for source in sources}) == 3
    assert not any(source.files for source in sources)


LAYOUTS: dict[str, tuple[str, dict[str, str], str]] = {
    "no splits": ("a.png b.png", {"train": "--"}, ""),
    "splits": ("train/a.png train/b.png test/c.png", {"train": "--", "test": "-"}, ""),
    "other words": (
        "Training/a.PNG dev/b.Png EVAL/c.JPG",
        dict.fromkeys(("train", "validation", "test"), "-"),
        "",
    ),
    "words in the names of files": ("a.png crash_test_7.png train.png val-1.png", {"train": "----"}, ""),
    "words in the names of some folders": (
        "normal/a.png crash_test/a.png dev_board/a.png",
        {"train": "crash_test dev_board normal"},
        "",
    ),
    "words in the names of all folders": (
        "train2017/a.png val2017/b.png my_test/c.png",
        dict.fromkeys(("train", "validation", "test"), "-"),
        "",
    ),
    "classes": ("train/cat/a.png train/dog/b.png test/dog/c.png", {"train": "cat dog", "test": "dog"}, ""),
    "a class that is called test": (
        "train/ok/a.png train/test/b.png test/test/c.png",
        {"train": "ok test", "test": "test"},
        "",
    ),
    "defects in the test split only": (
        "train/good/a.png test/bad/a.png test/good/b.png masks/bad/a.png",
        {"train": "good", "test": "bad good"},
        "1 file(s) are not read, because they are in none of its splits (train, test): masks/bad/a.png",
    ),
    "images beside the splits": (
        "a.png b.png c.png d.png test/e.png",
        {"test": "-"},
        "4 file(s) are not read, because they are in none of its splits (test): a.png, b.png, c.png, ...",
    ),
    "images beside the classes": (
        "a.png cat/b.png dog/c.png",
        {"train": "---"},
        "its folders are not classes, because its images are not all as deep",
    ),
    "a class around the splits": ("cat/test/a.png cat/train/b.png", {"train": "-", "test": "-"}, ""),
    "hidden": ("a.png .b.png .thumbs/c.png d/.e.png", {"train": "-"}, ""),
    "every suffix": ("a.jfif b.jpe c.dib d.pnm e.pbm f.TIFF", {"train": "------"}, ""),
    "other formats": (
        "a.png b.heic c.zip",
        {"train": "-"},
        "2 file(s) are not read, because lebm reads PNG, JPEG, BMP, GIF, WebP, TIFF and PPM: b.heic, c.zip",
    ),
    "odd names": ("a\nb.png $HOME.png e::f.png g[1].png h?.png ~.png", {"train": "------"}, ""),
    "shards": (
        "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet extra-00000-of-00001-1a.parquet",
        {"train": "--", "extra": "-"},
        "",
    ),
    "tables": ("mnist_train.parquet mnist_test.parquet", {"train": "-", "test": "-"}, ""),
    "one table with a word": ("mine.parquet crash_test.parquet", {"train": "--"}, ""),
    "a table beside the splits": (
        "more.parquet train.parquet",
        {"train": "-"},
        "1 file(s) are not read, because they are in none of its splits (train): more.parquet",
    ),
    "folders of tables": ("default/train/0.parquet default/test/0.parquet", {"train": "-", "test": "-"}, ""),
    "tables and a picture": (
        "logo.png test.parquet train.parquet",
        {"train": "-", "test": "-"},
        "1 file(s) are not read, because most files of the folder are parquet: logo.png",
    ),
    "images and a table": (
        "a.png b.png features.parquet",
        {"train": "--"},
        "1 file(s) are not read, because most files of the folder are images: features.parquet",
    ),
}


def laid_out(folder: Path, names: str) -> list[Path]:
    """Files of random pixels, one for each name; parquet files have one row."""
    files = [folder / name for name in names.split(" ")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            write_parquet(file, [png(pictures(1, seed=number)[0])], [0])
        else:
            file.write_bytes(png(pictures(1, seed=number)[0]))
    return files


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_is_read_or_said(layout: str, tmp_path: Path) -> None:
    names, expected, said = LAYOUTS[layout]
    files = laid_out(tmp_path / "data", names)
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        found = find_source(str(tmp_path / "data")).splits
        opened = {
            name: open_images(str(tmp_path / "data"), name, cache_dir=tmp_path / "c") for name in found or {}
        }
    assert {str(notice.message) for notice in notices} == {
        f"data path '{tmp_path}/data': {said}" for _ in said[:1]
    }
    assert list(opened) == list(expected)
    for name, images in opened.items():
        classes = expected[name]
        own = list(found[name])  # type: ignore[index]
        assert [tuple(image.reshape(-1)) for image in images.images] == [
            tuple(pictures(1, seed=files.index(file)).reshape(-1)) for file in own
        ]
        if set(classes) == {"-"}:
            assert len(images) == len(classes)
            assert images.has_labels == (own[0].suffix == ".parquet")
        else:
            assert [images.label_names[label] for label in images.labels] == classes.split()  # type: ignore[index]


@pytest.mark.parametrize("name", ["set[1]", "what?", "a*b", "set{1}", "sp ace", "#1", "50%", "[!a]"])
@pytest.mark.parametrize("suffix", [".png", ".parquet"])
def test_a_folder_with_signs_of_patterns(tmp_path: Path, name: str, suffix: str) -> None:
    laid_out(tmp_path / name, f"0{suffix} 1{suffix} 2{suffix}")
    assert len(open_images(str(tmp_path / name), cache_dir=tmp_path / "c")) == 3


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    laid_out(tmp_path / "data" / "a", "0.png 1.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "data" / "a")
    images = open_images(str(tmp_path / "data"), cache_dir=tmp_path / "c")
    assert images.file_names() == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]


METADATA: dict[str, tuple[str, str, list[int] | str]] = {
    "labels": ("metadata.csv", "file_name,label\ncat/a.png,ant\ndog/b.png,bee\n", [0, 1]),
    "labels of one folder": ("cat/metadata.csv", "file_name,label\na.png,5\n", [5]),
    "lines of JSON": (
        "metadata.jsonl",
        '{"file_name": "dog/b.png", "class": 7}\n{"file_name": "./cat/a.png", "class": 3}\n',
        [7, 3],
    ),
    "no such image": ("metadata.csv", "file_name\ncat/z.png\n", r"row 0 .*No such file or directory"),
    "no names": ("metadata.csv", "name,label\ncat/a.png,1\n", r"cannot be read: .*file_name"),
}


@pytest.mark.parametrize("case", METADATA)
def test_a_folder_with_metadata_is_read_as_on_the_hub(case: str, tmp_path: Path) -> None:
    name, text, expected = METADATA[case]
    laid_out(tmp_path / "data", "cat/a.png dog/b.png")
    (tmp_path / "data" / name).write_text(text)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as error:
            open_images(str(tmp_path / "data"), cache_dir=tmp_path / "c")
        one_line(error)
    else:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            images = open_images(str(tmp_path / "data"), cache_dir=tmp_path / "c")
        assert images.labels.tolist() == expected
        lost = "1 of 2 images are not read, because the metadata files do not name them"
        assert any(lost in str(one.message) for one in said) == (len(expected) == 1)


CARD = """---
configs:
- config_name: small
  data_files:
  - {split: train, path: small/a*}
  - {split: probe, path: small/b*}
"""


@pytest.mark.parametrize("suffix", [".png", ".parquet"])
def test_a_readme_with_configurations_names_the_files(tmp_path: Path, suffix: str) -> None:
    data, cache = str(tmp_path / "data"), tmp_path / "c"
    laid_out(
        tmp_path / "data",
        " ".join(f"{name}{suffix}" for name in ("small/a1", "small/a2", "small/b", "large/c")),
    )
    (tmp_path / "data" / "README.md").write_text(f"{CARD}---\n")
    assert len(open_images(data, "train", cache_dir=cache)) == 2
    (tmp_path / "data" / "README.md").write_text(
        f"{CARD}- config_name: large\n  data_files: large/*{suffix}\n---\n"
    )
    assert split_names(data, config_name="small", cache_dir=cache) == ["train", "probe"]
    assert len(open_images(data, "train", config_name="small", cache_dir=cache)) == 2
    assert len(open_images(data, "train", config_name="large", cache_dir=cache)) == 1


def test_the_data_of_a_run_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a/imgs", "b/imgs"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    stored = located("imgs")
    assert stored == str(tmp_path / "a" / "imgs")
    assert [is_own(data, stored) for data in (None, "imgs", "./imgs/", "../b/imgs")] == [
        True,
        True,
        True,
        False,
    ]
    monkeypatch.chdir(tmp_path / "b")
    assert not is_own("imgs", stored)
    assert located("ylecun/mnist") == "ylecun/mnist"
    assert is_own("ylecun/mnist", "ylecun/mnist")


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
    with pytest.raises(UserError, match="choose from embedded:mnist"):
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
