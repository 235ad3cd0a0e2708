"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lebm.files import UNFINISHED, remove_folder, replaced


def test_a_file_appears_at_the_end_of_the_block_in_a_folder_made_for_it(tmp_path: Path) -> None:
    target = tmp_path / "some" / "folder" / "a.txt"
    with replaced(target) as unfinished:
        unfinished.write_text("new")
        assert not target.exists()
        assert unfinished.parent == target.parent
        assert unfinished.name.startswith(".a.txt.")
        assert unfinished.name.endswith(UNFINISHED)
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def interrupted(file: Path) -> None:
    file.write_text("half of the n")
    raise KeyboardInterrupt


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(target) as unfinished:
        interrupted(unfinished)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_before_anything_is_written_is_the_one_that_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replaced(tmp_path / "a.txt"):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with replaced(tmp_path / "a.txt") as first, replaced(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"  # its block ended last


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space left on device: '.*a.txt'"), replaced(target):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with replaced(tmp_path / "pipe") as unfinished:
        assert unfinished == tmp_path / "pipe"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "deep/er/model.safetensors"])
def test_a_folder_with_weights_is_never_removed(tmp_path: Path, name: str) -> None:
    for file in (tmp_path / "run" / "metrics.csv", tmp_path / "run" / name):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    remove_folder(tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").rglob("*.*")} == {"metrics.csv", Path(name).name}
    (tmp_path / "run" / name).unlink()
    remove_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    remove_folder(tmp_path / "run")
