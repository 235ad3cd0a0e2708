"""One writer per run folder: a second process is refused, and a killed one leaves no lock."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.errors import UserError
from lebm.run.folder import sole_writer
from tests.cli.conftest import Run
from tests.cli.test_processes import command

LONG = ["--trainer.max_epochs", 10**6, "--trainer.enable_progress_bar", "false", "--trust", "tests"]
HOLDS = """
import sys, time
from pathlib import Path
from lebm.run.folder import sole_writer
with sole_writer(Path(sys.argv[1]), sys.argv[2] == "True"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[list[subprocess.Popen]]:
    """Processes to end after the test."""
    running: list[subprocess.Popen] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def hold(run_dir: Path, resume: bool, running: list[subprocess.Popen]) -> subprocess.Popen:
    """A second process that holds the lock of a run folder."""
    words, environment = command()
    process = subprocess.Popen(
        [words[0], "-c", HOLDS, str(run_dir), str(resume)], env=environment, stdout=subprocess.PIPE, text=True
    )
    running.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*")}


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_until_the_first_is_killed(
    lebm: Run,
    trained: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    holder: list[subprocess.Popen],
    resume: bool,
) -> None:
    run = trained if resume else Path("runs/fresh")
    words = ["--resume", run] if resume else ["-c", tiny, "--run_dir", run]
    process = hold(run, resume, holder)
    before = tree(run)
    assert lebm("fit", *words, "--trainer.max_epochs", 3) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{run}: process {process.pid} on {socket.gethostname()} is training in this folder" in error
    assert tree(run) == before
    process.kill()
    process.wait()
    assert (run / ".lock").exists()
    assert lebm("fit", *words, "--trainer.max_epochs", 3) == 0
    assert not (run / ".lock").exists()


@pytest.mark.slow
def test_two_commands_at_once_and_a_kill(tiny: Path, holder: list[subprocess.Popen]) -> None:
    words, environment = command("fit", "-c", tiny, *LONG)
    for _ in range(2):
        pipe = subprocess.PIPE
        holder.append(subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True))
    deadline = time.monotonic() + 120
    while all(process.poll() is None for process in holder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused, first = sorted(holder, key=lambda process: process.poll() is None)
    assert refused.returncode == 2
    error = refused.communicate()[1]
    assert "process" in error
    assert "is training in this folder" in error
    assert error.count("\n") == 1
    while not Path("runs/tiny/checkpoints/last.ckpt").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.1)
    first.kill()
    first.wait()
    with sole_writer(Path("runs/tiny"), resume=True):
        pass


def test_the_lock_is_released_with_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_writer(tmp_path / "a" / "run", resume=False):
            assert (tmp_path / "a" / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        assert list(tmp_path.iterdir()) == []
    with sole_writer(tmp_path / "run", resume=False):
        (tmp_path / "run" / "config.yaml").write_text("")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    with pytest.raises(UserError, match="continue it with --resume"), sole_writer(tmp_path / "run", False):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot write the run folder"),
        sole_writer(tmp_path / "file" / "run", True),
    ):
        pass


def test_a_file_system_without_locks_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with sole_writer(tmp_path / "run", resume=False):
        pass
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this file system has no locks (No locks available)" in error


def test_a_refused_recipe_leaves_no_folder(tiny: Path) -> None:
    assert main(["fit", "-c", str(tiny), "--run_dir", "deep/in/run", "--trainer.max_epochs", "1"]) == 2
    assert not Path("deep").exists()
