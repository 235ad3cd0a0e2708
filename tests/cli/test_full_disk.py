"""A full disk: one line that names the file, status 2, and no half of a file."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from lebm.__main__ import main
from tests.cli.conftest import Run
from tests.distributed import run_processes

REPLACE = os.replace


def refuse(source: object, target: Path = Path("event")) -> None:
    """What writes or renames on a full disk; the cache lies on another one."""
    if "cache" in target.parts:
        return REPLACE(source, target)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("cp quickstart own.yaml", "own.yaml"),
        ("score runs/tiny --data ./pictures", "runs/tiny/scores.csv"),
        ("score runs/tiny --data ./pictures --out s.parquet", "s.parquet"),
        ("sample runs/tiny -n 2", "runs/tiny/images/samples.png"),
        ("sample runs/tiny -n 2 --out x.npy", "x.npy"),
        ("diagnose runs/tiny --chains 4 --steps 8 --data ./pictures", "runs/tiny/diagnosis/prior.png"),
        ("report runs/tiny", "report.html"),
        ("export runs/tiny m.safetensors", "m.safetensors"),
    ],
)
@pytest.mark.usefixtures("trained", "pictures")
def test_a_command_names_the_file_and_leaves_none(
    lebm: Run, words: str, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in Path().rglob("*") if path.is_file()}
    monkeypatch.setattr("lebm.files.os.replace", refuse)
    verb, *rest = words.split()
    status = main([verb, *rest]) if verb in ("cp", "report") else lebm(verb, *rest)
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lebm: error")]
    assert (status, error) == (2, f"lebm: error: [Errno 28] No space left on device: '{file}'")
    assert {path for path in Path().rglob("*") if path.is_file()} == before


def _on_a_full_disk(folder: Path, words: list[str]) -> tuple[int, str]:
    """Status and standard error of a command, where TensorBoard's thread can write no event."""
    from tensorboard.summary.writer import record_writer

    from lebm.__main__ import main

    os.chdir(folder)
    record_writer.RecordWriter.write = lambda *event: refuse(event)
    with open("errors", "w+", encoding="utf-8") as sys.stderr:
        status = main(words)
        sys.stderr.seek(0)
        return status, sys.stderr.read()


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_disk_that_is_full_at_the_start(trained: Path, tmp_path: Path, verb: str) -> None:
    before = (trained / "checkpoints" / "last.ckpt").read_bytes()
    words = ["fit", "--resume"] if verb == "fit" else ["test"]
    words += [str(trained), "--trainer.max_epochs", "3", "--trust", "tests"]
    ((status, error),) = run_processes(_on_a_full_disk, tmp_path, words, world_size=1)
    again = f", then lebm fit --resume {trained} continues" if verb == "fit" else ""
    assert (status, error) == (
        2,
        f"lebm: error: {trained}: No space left on device; free disk space{again}\n",
    )
    assert (trained / "checkpoints" / "last.ckpt").read_bytes() == before
