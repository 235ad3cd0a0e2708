"""The lock file, the audit, and the tests that SECURITY.md names."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text()


def pins(file: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.+!]+)", (ROOT / file).read_text(), re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_lock_file_names_the_tested_versions_with_hashes() -> None:
    assert pins("requirements.lock") == pins("constraints.txt")
    entries = re.split(r"\n(?=[\w.-]+==)", (ROOT / "requirements.lock").read_text())[1:]
    assert len(entries) == len(pins("constraints.txt"))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_the_tested_versions_are_within_the_bounds() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = "\n".join(
        [setup["options"]["install_requires"], *(extras[name] for name in ("train", "metrics"))]
    )
    tested = pins("constraints.txt")
    floors = re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", lines, re.M)
    assert len(floors) > 15
    for name, floor in floors:
        ours, least = ([int(part) for part in text.split(".")] for text in (tested[name], floor))
        assert ours >= least, name
    assert dict(floors)["pillow"] == "10.3"  # earlier ones decode WebP by a libwebp with CVE-2023-4863
    assert extras["all"].strip() == "lebm[train,metrics,wandb]"


def test_an_audit_without_answers_fails() -> None:
    rule = (ROOT / "Makefile").read_text().partition("\naudit:")[2].partition("\n\n")[0]
    assert "pip-audit --strict" in rule
    assert "-r requirements.lock" in rule


def test_each_of_the_two_rules_of_the_security_page_has_a_test() -> None:
    rules = re.findall(r"^(\d)\. \*\*", SECURITY, re.M)
    tests = dict(re.findall(r"^\| (\d) \| `(\S+)` \|$", SECURITY, re.M))
    assert rules == list(tests) == ["1", "2"]
    assert all("def test_" in (ROOT / file).read_text() for file in tests.values())
