"""Break the numerical code in one place at a time, and check that the tests fail.

    python scripts/mutations.py                    # all, several minutes on two cores
    python scripts/mutations.py --only langevin    # only files whose path contains the word
    python scripts/mutations.py --check            # check the replacements; runs no tests

tests/mutations.yaml lists the mutations: exact replacements in one file, made in a copy of the package, and
the tests that must fail. The exit status is 1 unless every mutation is caught."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
Mutation = dict[str, str]


def misplaced(group: dict, mutation: Mutation) -> str:
    """Return why a mutation cannot be made, or an empty string.

    The text to replace must occur once, and the result must be valid Python.
    """
    file = ROOT / group["file"]
    source = file.read_text() if file.is_file() else ""
    if missing := [test for test in group["tests"] if not (ROOT / test).is_file()]:
        return f"no such tests: {', '.join(missing)}"
    if (count := source.count(mutation["old"])) != 1:
        return f"the text to replace occurs {count} times, not once: {mutation['old']!r}"
    try:
        compile(source.replace(mutation["old"], mutation["new"]), group["file"], "exec")
    except SyntaxError as error:
        return f"not Python ({error.msg}): {mutation['new']!r}"
    return ""


def first_failure(group: dict, mutation: Mutation | None = None) -> str:
    """Return the first failing test in a copy of the package with a mutation; empty if all pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("lebm", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "setup.cfg", folder)
        if mutation:
            file = folder / group["file"]
            file.write_text(file.read_text().replace(mutation["old"], mutation["new"]))
        options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", "--tb=no"]
        own = {"PYTHONPATH": name, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *group["tests"]],
            cwd=folder,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=900,
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        return failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else done.stdout[-500:]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="part of the file path (default: all)")
    parser.add_argument("--check", action="store_true", help="check of the replacements, without tests")
    arguments = parser.parse_args()
    groups = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text())
    chosen = [
        (group, one) for group in groups if arguments.only in group["file"] for one in group["mutations"]
    ]
    names = [f"{group['file']}: {one['meaning']}" for group, one in chosen]
    reasons = [misplaced(group, one) for group, one in chosen]
    problems = [f"{name}: {why}" for name, why in zip(names, reasons, strict=True) if why]
    print("\n".join([*problems, f"{len(chosen) - len(problems)} of {len(chosen)} mutations can be made"]))
    if arguments.check or problems:
        return int(bool(problems))
    if broken := first_failure({"tests": sorted({test for group, _ in chosen for test in group["tests"]})}):
        print(f"the tests fail without any mutation: {broken}")
        return 1
    caught = 0
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda pair: first_failure(*pair), chosen)
        for name, failure in zip(names, found, strict=True):
            caught += bool(failure)
            print(f"caught    [{failure}]  {name}" if failure else f"SURVIVED   {name}", flush=True)
    print(f"caught {caught} of {len(chosen)} mutations")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
