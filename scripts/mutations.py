"""Break the numerical code in one place at a time, and see whether the tests notice.

    python scripts/mutations.py                    # all, several minutes on two cores
    python scripts/mutations.py --only langevin    # those of files whose path contains the word
    python scripts/mutations.py --list
    python scripts/mutations.py --check            # that every mutation can be made; runs no tests

The mutations are in mutation_table.py. Each is an exact replacement in one file, made in a copy of the
package. The tests named beside it must fail there. The last line is the score. The exit status is 1 unless
every mutation was caught."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutation_table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]


def run_tests(folder: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the tests pass in a copy, and the first failure."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        "--no-header",
        "--tb=no",
        *tests,
    ]
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, (
        failed[0].removeprefix("FAILED ").split(" - ")[0]
        if failed
        else "all tests pass"
        if done.returncode == 0
        else done.stdout[-500:]
    )


def copy_of_the_package(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir=parent))
    for name in ("lebm", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
    shutil.copy(ROOT / "setup.cfg", folder)
    return folder


def misplaced(mutation: Mutation) -> str:
    """Why a mutation cannot be made: the text to replace must occur once, and Python must read the result.

    Empty if it can.
    """
    file = ROOT / mutation.file
    source = file.read_text() if file.is_file() else ""
    count = source.count(mutation.old)
    missing = [test for test in mutation.tests if not (ROOT / test).is_file()]
    if missing:
        return f"no such tests: {', '.join(missing)}"
    if count != 1:
        return f"the text to replace occurs {count} times, not once: {mutation.old!r}"
    try:
        compile(source.replace(mutation.old, mutation.new), mutation.file, "exec")
    except SyntaxError as error:
        return f"not Python ({error.msg}): {mutation.new!r}"
    return ""


def survives(mutation: Mutation, parent: Path) -> tuple[bool, str]:
    if problem := misplaced(mutation):
        return True, problem
    folder = copy_of_the_package(parent)
    file = folder / mutation.file
    source = file.read_text()
    file.write_text(source.replace(mutation.old, mutation.new))
    passed, detail = run_tests(folder, mutation.tests)
    shutil.rmtree(folder)
    return passed, detail


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="a part of the file's path")
    parser.add_argument("--jobs", type=int, default=2, help="mutations tried at the same time")
    parser.add_argument("--list", action="store_true", help="name the mutations and stop")
    parser.add_argument("--check", action="store_true", help="only look for the texts to replace")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.file]
    if arguments.list or not chosen:
        print(
            "\n".join(f"{mutation.file}: {mutation.meaning}" for mutation in chosen) or "no mutation matches"
        )
        return 0
    if arguments.check:
        problems = [f"{one.file}: {one.meaning}: {why}" for one in chosen if (why := misplaced(one))]
        print("\n".join([*problems, f"{len(chosen) - len(problems)} of {len(chosen)} mutations can be made"]))
        return 1 if problems else 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(arguments.jobs) as pool:
        parent = Path(name)
        tests = tuple(sorted({test for mutation in chosen for test in mutation.tests}))
        passed, detail = run_tests(copy_of_the_package(parent), tests)
        if not passed:
            print(f"the tests fail without any mutation: {detail}")
            return 1
        caught = 0
        for mutation, (survived, detail) in zip(
            chosen, pool.map(lambda one: survives(one, parent), chosen), strict=True
        ):
            caught += not survived
            print(
                f"{'SURVIVED' if survived else 'caught  '}  {mutation.file}: {mutation.meaning} "
                f" [{detail if detail else ''}]",
                flush=True,
            )
    print(f"caught {caught} of {len(chosen)} mutations")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
