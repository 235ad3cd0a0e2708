"""The pages of results: their tables come from results/, and their words stay within the tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import study

    return study


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


def cell(seed: int, distance: list[float | None]) -> dict[str, Any]:
    made = {"command": "lebm fit", "cpu_minutes": 2.0, "versions": None, "hardware": None, "started": None}
    settings = {"recipe": "a", "seed_everything": seed}
    return {"cell": "own", "settings": settings, **made, "steps": 60_000, "figures": {"distance": distance}}


def table_of(study: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, cells: list[Any], **more: Any) -> str:
    """The last line of the table of some cells, by a study with one row."""
    columns = {"seeds": ["seeds", ""], "ms": ["ms_per_step", "{:.0f}"], "d": ["{figure}", "{:.1f}"]}
    row = ["first", {"cell": "own", "recipe": "a", "$figure": "distance"}]
    content = {"cells": {}, "tables": {"one": {"head": ["row"], "rows": [row], "columns": columns, **more}}}
    (folder / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "own.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    monkeypatch.setattr(study, "STUDIES", folder)
    monkeypatch.setattr(study, "RESULTS", folder)
    return study.block("own", "one").splitlines()[2]


def test_a_row_has_the_interval_of_one_cell_and_the_range_of_several(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = cell(0, [4.0, 3.0, 6.0]), cell(1, [5.0, 4.5, 5.5]), cell(2, [9.0, None, None])

    def row(*cells: Any, **more: Any) -> str:
        return table_of(study, tmp_path, monkeypatch, list(cells), **more)

    assert row(one) == "| first | 1 | 2 | 4.0 (3.0 to 6.0) |"
    assert row(one, two, three) == "| first | 3 | 2 | 6.0 (4.0 to 9.0) |"
    assert row(one, two, three, over="median") == "| first | 3 | 2 | 5.0 (4.0 to 9.0) |"
    assert row(one, two, three, spread=False) == "| first | 3 | 2 | 6.0 |"
    other = {**one, "settings": {"recipe": "b", "seed_everything": 0}}
    assert row(other) == "| first | not run |  |  |"


def test_a_run_trains_missing_cells_only_and_appends_their_lines(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the processes, which leaves what training and evaluation leave."""
    plan = {
        "cases": {"prior": {"flat": {}, "free": {"recipe": "b -c prior/x", "settings": {"p": {"q": 1.5}}}}},
        "recipe": "a",
        "settings": {"trainer.max_epochs": 3},
        "axes": {"held_out_label": [1, 4]},
        "evaluate": "--suite image",
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"cells": {"c": plan}}))
    made = {"cell": "c", "settings": {"prior": "flat", "held_out_label": 1}}
    (tmp_path / "own.jsonl").write_text(json.dumps(made) + "\n")
    monkeypatch.setattr(study, "STUDIES", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    seen: list[tuple[str, ...]] = []

    def process(*words: str) -> None:
        seen.append(words)
        run = Path(words[words.index("--run_dir") + 1] if "--run_dir" in words else words[3])
        run.mkdir(parents=True, exist_ok=True)
        summary = {"status": "finished", "cpu_time_seconds": 90.0, "versions": {}, "hardware": {}, "steps": 7}
        (run / "summary.json").write_text(json.dumps(summary))
        figure = {"name": "mse", "value": 1.0, "low": 0.5, "high": 2.0}
        (run / "evaluation.json").write_text(json.dumps({"suites": {"image": {"figures": [figure]}}}))

    monkeypatch.setattr(study, "process", process)
    study.run("own", tmp_path / "runs", None, Path("/data"))
    lines = study.stored_cells("own")
    assert [line["settings"] for line in lines[1:]] == [
        {"prior": "flat", "held_out_label": 4},
        {"prior": "free", "held_out_label": 1},
        {"prior": "free", "held_out_label": 4},
    ]
    flag = "--data.init_args.held_out_label 4"
    assert lines[1]["command"] == f"lebm fit -c a --trainer.max_epochs 3 {flag}"
    assert (
        lines[3]["command"] == f"lebm fit -c b -c prior/x --trainer.max_epochs 3 --p '{{\"q\": 1.5}}' {flag}"
    )
    assert lines[1]["figures"] == {"mse": [1.0, 0.5, 2.0]}
    assert lines[1]["cpu_minutes"] == 1.5
    assert seen[0][-4:-2] == ("--data.init_args.path", "/data/mnist")
    before = len(seen)
    study.run("own", tmp_path / "runs", None, None)
    assert len(seen) == before


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.jsonl")), ids=lambda path: path.name)
def test_every_cell_has_the_one_schema(path: Path) -> None:
    keys = {"cell", "settings", "command", "cpu_minutes", "versions", "hardware", "started", "figures"}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        assert keys - {"cpu_minutes"} <= line.keys() <= keys | {"steps"}
        assert all(len(ends) == 3 for ends in line["figures"].values())


def test_every_cell_of_a_plan_can_be_told_from_the_others(study: Any) -> None:
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        for plan in study.study(path.stem)["cells"].values():
            settings = list(study.planned(plan))
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
