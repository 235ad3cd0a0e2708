"""A checkpoint with one byte changed, or cut anywhere, is refused by name; a good one beside it is found."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import lebm
from lebm import checkpoint
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import UserError
from tests.estimators.test_latent_mle import small_model

PLACES = 200


def write(path: Path, step: int = 3, io: AtomicCheckpointIO | None = None) -> Path:
    model = small_model(seed=step)
    content = {
        "state_dict": model.state_dict(),
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
    }
    model.on_save_checkpoint(content)
    (io or AtomicCheckpointIO()).save_checkpoint(content, path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("whole") / "a.ckpt").read_bytes()


def places(size: int) -> list[int]:
    """Random ones, and the first and last bytes, where the archive's own structure lies."""
    drawn = np.random.default_rng(0).integers(0, size, PLACES - 80).tolist()
    return [*range(10), *range(size - 70, size), *drawn]


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_changed_byte_is_never_loaded(whole: bytes, tmp_path: Path, mask: int) -> None:
    path = tmp_path / "a.ckpt"
    for place in places(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=re.escape(str(path))) as caught:
            checkpoint.read(path)
        assert "\n" not in str(caught.value), place


def test_a_cut_file_is_never_loaded(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for place in places(len(whole)):
        for damaged in (whole[:place], whole[:place] + whole[place + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=re.escape(str(path))):
                checkpoint.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(UserError):
        checkpoint.read(path)


def test_the_trainer_reads_as_strictly(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="its checksum is wrong"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_bare_weights_reach_the_process_that_removes_them(tmp_path: Path) -> None:
    """As in Lightning's launchers: a forked process writes the weights, its parent reads the file."""
    path = tmp_path / ".temp.ckpt"
    weights = {"w": torch.arange(3.0), "part._extra_state": {"slots": 2}}
    AtomicCheckpointIO().save_checkpoint(weights, path)
    parent = AtomicCheckpointIO()
    found = parent.load_checkpoint(path)
    assert torch.equal(found.pop("w"), weights["w"])
    assert found == {"part._extra_state": {"slots": 2}}
    parent.remove_checkpoint(path)
    assert not path.exists()


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_good_one_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run" / "checkpoints"
    write(folder / "step=00000004.ckpt", 4)
    write(folder / "step=00000006.ckpt", 6)
    last = write(folder / "last.ckpt", 6)
    (folder / ".last.ckpt.0123abcd.unfinished").write_bytes(b"half")
    assert checkpoint.find_checkpoint(tmp_path / "run") == last
    with caplog.at_level(logging.WARNING):
        spoil(last)
        assert checkpoint.find_checkpoint(tmp_path / "run").name == "step=00000006.ckpt"
        assert "last.ckpt: not a readable checkpoint (its checksum is wrong)" in caplog.text
        spoil(folder / "step=00000006.ckpt")
        assert checkpoint.newest(tmp_path / "run")[1]["global_step"] == 4
        assert lebm.load(tmp_path / "run").latent_dim
    with pytest.raises(UserError, match=r"last\.ckpt: not a readable checkpoint \(its checksum is wrong\)"):
        checkpoint.read(last)
    spoil(folder / "step=00000004.ckpt")
    with pytest.raises(UserError, match="no other checkpoint in the folder is intact"):
        checkpoint.find_checkpoint(tmp_path / "run")


def test_a_kill_between_two_files_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    write(folder / "last.ckpt", 6)
    newer = write(folder / "step=00000009.ckpt", 9)
    os.utime(newer, (1, 1))  # a copied folder has times of any kind
    assert checkpoint.find_checkpoint(tmp_path / "run") == newer


def test_files_of_a_plain_trainer_need_no_checksum(tmp_path: Path) -> None:
    model = small_model()
    content = {"state_dict": model.state_dict(), "global_step": 1}
    model.on_save_checkpoint(content)
    torch.save(content, tmp_path / "plain.ckpt")
    assert checkpoint.read(tmp_path / "plain.ckpt")["lebm_format"] == 1
    torch.save(content | {"lebm_format": 2}, tmp_path / "plain.ckpt")
    with pytest.raises(UserError, match="its checksum is missing"):
        checkpoint.read(tmp_path / "plain.ckpt")
