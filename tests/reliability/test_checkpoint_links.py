"""Links in a run folder: nothing is written through one."""

from __future__ import annotations

from pathlib import Path

import pytest

import lebm
from lebm.__main__ import main
from lebm.component import describe
from tests.checkpoint.test_weights_are_data import base, saved
from tests.estimators.test_latent_mle import small_model


def run_folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    saved(base)(run / "checkpoints" / "last.ckpt")
    return run


def test_the_newest_checkpoint_may_be_a_link(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run / "checkpoints" / "last.ckpt").rename(run / "checkpoints" / "step=1.ckpt")
    # as ModelCheckpoint(save_last="link") makes it
    (run / "checkpoints" / "last.ckpt").symlink_to("step=1.ckpt")
    assert describe(lebm.load(run)) == describe(small_model(seed=1))


def test_nothing_is_written_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path)
    (run / "images").mkdir()
    (run / "images" / "samples.npy").symlink_to(tmp_path / "elsewhere.npy")
    assert main(["sample", str(run), "-n", "2", "--format", "npy"]) == 0
    assert not (tmp_path / "elsewhere.npy").exists()
    assert (run / "images" / "samples-2.npy").exists()
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (run / "images").iterdir():
        file.unlink()
    (run / "images").rmdir()
    (run / "images").symlink_to(outside)
    assert main(["sample", str(run), "-n", "2", "--format", "npy"]) == 2
    assert "a link out of the run folder" in capsys.readouterr().err
    assert not list(outside.iterdir())


def test_a_checkpoint_is_written_over_a_link_and_not_through_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "last.ckpt").symlink_to(tmp_path / "precious")
    saved(base)(tmp_path / "last.ckpt")
    assert (tmp_path / "precious").read_text() == "keep me"
    assert not (tmp_path / "last.ckpt").is_symlink()
