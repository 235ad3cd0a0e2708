"""A full disk, a folder that is read-only or gone: one line, and the last checkpoint as it was."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from lebm import checkpoint
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import CheckpointWriteError
from tests.distributed import run_processes
from tests.reliability.test_damage import write


def _write_on_a_full_disk(last: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # what a full disk looks like to a writer
    try:
        AtomicCheckpointIO().save_checkpoint(
            {"lebm_format": 1, "state_dict": {"w": torch.randn(100_000)}}, last
        )
    except CheckpointWriteError as error:
        return str(error)
    return "written"


def test_a_disk_that_fills_while_writing(tmp_path: Path) -> None:
    last = write(tmp_path / "checkpoints" / "last.ckpt")
    before = last.read_bytes()
    (told,) = run_processes(_write_on_a_full_disk, last, world_size=1)
    kept = "earlier checkpoints are untouched, so fix it and continue with --resume"
    assert told == f"cannot write the checkpoint {last} (File too large); {kept}"
    assert last.read_bytes() == before
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_every_step_of_writing_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    last = write(tmp_path / "last.ckpt")
    before = last.read_bytes()

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr("lebm.checkpoint.writing.open", refuse, raising=False)
        else:
            patch.setattr(f"lebm.checkpoint.writing.os.{call}", refuse)
        with pytest.raises(CheckpointWriteError, match=os.strerror(number)) as caught:
            AtomicCheckpointIO().save_checkpoint(
                {"lebm_format": 1, "state_dict": {"w": torch.zeros(3)}}, last
            )
    assert "\n" not in str(caught.value)
    assert last.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_has_vanished_is_not_made_again(tmp_path: Path) -> None:
    """It may be the place where a file system was mounted."""
    io = AtomicCheckpointIO()
    last = write(tmp_path / "run" / "checkpoints" / "last.ckpt", io=io)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(
        CheckpointWriteError, match=r"last\.ckpt \(the folder has been removed since the last checkpoint\)"
    ):
        write(last, io=io)
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointWriteError, match="File exists|Not a directory"):
        write(tmp_path / "checkpoints" / "last.ckpt")


def test_orphans_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt")
    orphan = tmp_path / ".last.ckpt.0123abcd.unfinished"
    orphan.write_bytes(b"half")
    (tmp_path / ".keep").write_text("")
    AtomicCheckpointIO.clean(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".keep", "last.ckpt"]
    assert checkpoint.read(tmp_path / "last.ckpt")["global_step"] == 3
