"""SIGKILL at random moments of writing leaves no unreadable newest checkpoint, wherever ``$TMPDIR`` is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed import run_processes
from tests.reliability.storm import kill_storm


@pytest.fixture(params=["same", "other"])
def temporary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """``$TMPDIR`` on the file system of the run, or on another one."""
    if request.param == "same":
        (tmp_path / "tmp").mkdir()
        yield tmp_path / "tmp"
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def storm(tmp_path: Path, temporary: Path, kills: int, numbers: int) -> dict[str, int]:
    # in a process of its own, because the writers are forked and must not inherit threads
    (counts,) = run_processes(
        kill_storm, tmp_path / "run", kills, numbers, temporary, world_size=1, timeout=600
    )
    assert counts["kills"] == kills
    assert counts["unreadable"] == counts["lost"] == 0, counts
    assert not list(temporary.iterdir())
    return counts


def test_thirty_kills(tmp_path: Path, temporary: Path) -> None:
    counts = storm(tmp_path, temporary, 15, 200_000)
    assert counts["steps"] > 0


@pytest.mark.slow
def test_a_thousand_kills(tmp_path: Path, temporary: Path) -> None:
    counts = storm(tmp_path, temporary, 500, 1_000_000)
    assert counts["orphans"] > 50, counts  # so the kills did fall into writing
