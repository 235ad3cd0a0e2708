"""The pages of results: their tables come from results/, and their words stay within the tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lebm.study import Study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "results").glob("*.md"))
INDEX = DOCS / "results.md"
BLOCK = re.compile(r"^<!-- (?!end )(\w+) -->\n.*?^<!-- end -->\n", re.S | re.M)
FOLDED = re.compile(r"^<details markdown>\n.*?^</details>\n", re.S | re.M)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)")


def make_results(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/make_results.py", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What `make results` reads and writes, to be changed."""
    for folder in ("docs", "recipes", "results", "scripts", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_make_results_changes_nothing() -> None:
    done = make_results(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_make_results_repairs_a_number_that_was_typed_in(copy: Path) -> None:
    page = copy / "docs" / "results" / "samples.md"
    right = page.read_text()
    page.write_text(right.replace("| 98.6 (", "| 8.6 ("))
    done = make_results(copy, "--check")
    assert done.returncode == 1
    assert "not up to date: equal_time;" in done.stderr
    assert make_results(copy).returncode == 0
    assert page.read_text() == right


def test_a_block_that_no_script_writes_is_refused(copy: Path) -> None:
    with (copy / "docs" / "when.md").open("a") as page:
        page.write("\n<!-- by_hand -->\n| 1 |\n<!-- end -->\n")
    done = make_results(copy)
    assert done.returncode == 1
    assert "no script writes by_hand" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.jsonl")), ids=lambda path: path.name)
def test_every_cell_has_the_one_schema(path: Path) -> None:
    keys = {"cell", "settings", "command", "cpu_minutes", "versions", "hardware", "started", "figures"}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        assert keys - {"cpu_minutes"} <= line.keys() <= keys | {"steps"}
        assert all(len(ends) == 3 for ends in line["figures"].values())


def test_every_cell_of_a_plan_can_be_told_from_the_others() -> None:
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        study = Study(path)
        for name in study.plan["cells"]:
            settings = [own for _, own in study.planned([name])]
            assert len({json.dumps(own, sort_keys=True) for own in settings}) == len(settings) > 0


def words(page: Path) -> str:
    """A page without its generated blocks and tables."""
    return re.sub(r"^\|.*\n", "", BLOCK.sub("", page.read_text()), flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_a_verdict_and_limits_and_is_short(page: Path) -> None:
    text = words(page)
    assert len(text.split()) <= 700
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?")
    assert re.search(r"^\*\*Verdict: (shown|shown in part|not shown)\b", text, re.M)
    assert "\n## Limits\n" in text
    assert BLOCK.search(page.read_text())
    unfolded = FOLDED.sub("", page.read_text())
    for table in re.findall(r"(?:^\|.*\n)+", unfolded, re.M):
        assert table.count("\n") <= 2 + 12


def test_the_index_leads_to_every_page_and_repeats_its_verdict() -> None:
    rows = re.findall(r"^\|.*\| (.*) \| \[[^]]*\]\(results/(\w+\.md)\)", INDEX.read_text(), re.M)
    assert {page for _, page in rows} == {page.name for page in PAGES}
    for page in PAGES:
        verdict = re.search(r"\*\*Verdict: ([\w ]+)", page.read_text())[1]
        said = next(said for said, name in rows if name == page.name)
        assert said.startswith(f"**{verdict.strip()}**"), page.name


ELSEWHERE = {"0.015": "above the largest difference of two rows of a table"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_decimal_numbers_of_the_words_are_in_a_table(page: Path) -> None:
    """As they are there, or rounded."""
    tables = "".join(block[0] for one in PAGES for block in BLOCK.finditer(one.read_text()))
    known = [float(number.replace(",", "")) for number in NUMBER.findall(tables)]
    text = re.sub(r"```.*?```|\]\([^)]*\)|`[^`]*`", "", words(page), flags=re.S)
    for number in NUMBER.findall(text):
        half = 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9
        found = any(abs(float(number.replace(",", "")) - other) <= half for other in known)
        assert found or "." not in number or number in ELSEWHERE, number


@pytest.mark.parametrize("page", [INDEX, ROOT / "README.md"], ids=lambda page: page.name)
def test_numbers_elsewhere_are_those_of_the_pages(page: Path) -> None:
    """Decimal numbers and percentages, as they are there, or rounded."""
    number_or_bare = re.compile(r"(?<![\w.])(?:\d[\d,]*)?\.?\d+(?!\w)")
    known = [float(n.replace(",", "")) for one in PAGES for n in number_or_bare.findall(one.read_text())]
    text = re.sub(r"```.*?```|\]\([^)]*\)|`[^`]*`", "", page.read_text(), flags=re.S)
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    numbers = [n for n in number_or_bare.findall(rows) if not re.fullmatch(r"20[12]\d", n)]
    assert len(numbers) > 10
    for number in numbers:
        half = 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9
        assert any(abs(float(number) - other) <= half for other in known), number
