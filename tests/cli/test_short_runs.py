"""Runs of fewer steps than lie between two logging steps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lebm.run.callbacks import ShortRun
from tests.cli.conftest import Run


@pytest.mark.parametrize(("words", "steps"), [((), [0, 1, 2, 3]), (("--trainer.log_every_n_steps", 3), [2])])
def test_a_short_run_logs_its_loss(
    lebm: Run, tiny: Path, words: tuple[object, ...], steps: list[int]
) -> None:
    text = tiny.read_text()
    tiny.write_text(text.replace("  log_every_n_steps: 1\n", ""))
    assert tiny.read_text() != text
    assert lebm("fit", "-c", tiny, "--trainer.max_steps", 4, *words) == 0
    with (Path("runs/tiny") / "metrics.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["loss"]] == steps


def test_a_long_run_logs_as_often_as_before() -> None:
    class Run:
        estimated_stepping_batches = 50
        log_every_n_steps = 50

    long, short = Run(), Run()
    short.estimated_stepping_batches = 49
    for trainer in (long, short):
        ShortRun().on_train_start(trainer, None)  # type: ignore[arg-type]
    assert (long.log_every_n_steps, short.log_every_n_steps) == (50, 4)
