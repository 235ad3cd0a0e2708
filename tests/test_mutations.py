"""The tests fail where the numerical code is wrong: tests/mutations.yaml lists replacements in one file each.

    python -m pytest tests/test_mutations.py -n 2 -k langevin    # only files with this word in their path

The slow tests make one replacement at a time in a copy of the package, and run the tests that must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GROUPS = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text())
MUTATIONS = [
    pytest.param(
        group["file"], group["tests"], one["old"], one["new"], id=f"{group['file']}: {one['meaning']}"
    )
    for group in GROUPS
    for one in group["mutations"]
]


def first_failure(folder: Path, tests: list[str], file: str = "", old: str = "", new: str = "") -> str:
    """The first failing test in a copy of the package with a replacement; empty if all pass."""
    for part in ("lebm", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", folder)
    if file:
        (folder / file).write_text((folder / file).read_text().replace(old, new))
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=no"]
    own = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | own,
        capture_output=True,
        text=True,
        timeout=900,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed or [done.stdout[-500:]])[0] if done.returncode else ""


def test_every_mutation_can_be_made() -> None:
    assert len(MUTATIONS) == 140
    for file, tests, old, new in (mutation.values for mutation in MUTATIONS):
        source = (ROOT / file).read_text()
        assert source.count(old) == 1, f"{file}: the text occurs {source.count(old)} times: {old!r}"
        compile(source.replace(old, new), file, "exec")
        assert all((ROOT / test).is_file() for test in tests), tests


@pytest.mark.slow
def test_without_a_mutation_the_tests_pass(tmp_path: Path) -> None:
    assert first_failure(tmp_path, sorted({test for group in GROUPS for test in group["tests"]})) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("file", "tests", "old", "new"), MUTATIONS)
def test_a_mutation_fails_a_test(tmp_path: Path, file: str, tests: list[str], old: str, new: str) -> None:
    assert first_failure(tmp_path, tests, file, old, new)
