"""Links in a run folder: nothing is written through one."""

from __future__ import annotations

from pathlib import Path

import lebm
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


def test_a_checkpoint_is_written_over_a_link_and_not_through_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "last.ckpt").symlink_to(tmp_path / "precious")
    saved(base)(tmp_path / "last.ckpt")
    assert (tmp_path / "precious").read_text() == "keep me"
    assert not (tmp_path / "last.ckpt").is_symlink()
