"""Weights & Biases, offline: a second run works, a resumed one keeps its id, the recipe is recorded."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lebm import checkpoint
from tests.cli.conftest import Run

OVERLAY = Path(__file__).resolve().parents[2] / "recipes" / "loggers" / "wandb.yaml"


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tiny.parent.resolve() / "wandb-home"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def recorded(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/offline-run-*"))


def id_of(record: Path) -> str:
    """The id in ``offline-run-TIME-ID``; wandb adds ``-1`` if a run is recorded twice within a second."""
    return record.name.split("-")[3]


def wait_for(word: bytes, folder: Path) -> None:
    """Until the word is in what was recorded: a process of wandb's own writes it, and may end after ours has
    gone on.
    """
    for _ in range(600):
        if any(word in file.read_bytes() for file in folder.glob("*.wandb")):
            return
        time.sleep(0.1)
    raise AssertionError(
        f"{word!r} is in no record of {folder}, which holds {sorted(path.name for path in folder.rglob('*'))}"
    )


def run_id(run: Path) -> str:
    return checkpoint.read(run / "checkpoints/last.ckpt")["callbacks"]["WandbRun"]["run_id"]


def test_two_runs_and_a_resumed_one(lebm: Run, tiny: Path) -> None:
    first, second = Path("runs/tiny"), Path("second")
    assert lebm("fit", "-c", tiny, "-c", OVERLAY, "--trainer.max_epochs", 1) == 0
    assert lebm("fit", "-c", tiny, "-c", OVERLAY, "--trainer.max_epochs", 1, "--run_dir", second) == 0
    assert run_id(first) != run_id(second)
    assert [id_of(path) for path in recorded(first)] == [run_id(first)]
    assert (first / "metrics.csv").is_file()
    assert not Path("wandb").exists()
    wait_for(b"sigma", recorded(first)[0])  # the resolved recipe is in the record

    before = run_id(first)
    assert lebm("fit", "--resume", first, "--trainer.max_epochs", 2) == 0
    assert run_id(first) == before
    assert {id_of(path) for path in recorded(first)} == {before}
    assert len(recorded(first)) == 2
    assert json.loads((first / "summary.json").read_text())["steps"] == 6
    import wandb

    assert wandb.run is None


def test_a_run_that_was_moved_goes_on_where_it_is(
    lebm: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt runs in another working folder too; wandb's process stays in that of the first."""
    assert lebm("fit", "-c", tiny, "-c", OVERLAY, "--trainer.max_epochs", 1) == 0
    elsewhere = Path("elsewhere").absolute()
    elsewhere.mkdir()
    moved = Path("runs/tiny").rename(elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    assert lebm("fit", "--resume", "moved", "--trainer.max_epochs", 2) == 0
    assert len(recorded(moved)) == 2
    for folder in recorded(moved):
        wait_for(b"sigma", folder)
    assert not Path("../runs/tiny").exists()
