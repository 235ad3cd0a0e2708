"""The pages of results: their tables come from results/, and their words stay within the tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "results").glob("*.md"))
INDEX = DOCS / "results.md"
BLOCK = re.compile(r"^<!-- (?!end )(\w+) -->\n.*?^<!-- end -->\n", re.S | re.M)
NUMBER = re.compile(r"(?<![\w.])(?:\d[\d,]*)?\.?\d+(?!\w)")


def make_results(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/make_results.py", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What `make results` reads and writes, to be changed."""
    for folder in ("docs", "recipes", "results", "scripts"):
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


def test_further_seeds_become_rows_and_a_mean(copy: Path) -> None:
    """A second seed of a recipe, and a second seed of all held-out digits."""
    first = json.loads((copy / "results" / "multistage_nce_mnist.json").read_text())
    for figure in first["suites"]["image"]["figures"]:
        figure["value"] += 1 if figure["name"] == "frechet_distance/digits64" else 0
    cell = {"value": "1", "fit": {**first["fit"], "seed": 1}, "evaluation": first}
    (copy / "results" / "seeds").mkdir(exist_ok=True)
    for file in (copy / "results" / "seeds").glob("*.json"):
        file.unlink()
    (copy / "results" / "seeds" / "multistage_nce-mnist-seed-1.json").write_text(json.dumps(cell))
    for folder in (copy / "results" / "anomaly").glob("seed-*"):
        shutil.rmtree(folder)
    other = copy / "results" / "anomaly" / "seed-1"
    other.mkdir()
    for digit in "14579":
        name = f"latent_mle-mnist_anomaly-held_out_label-{digit}.json"
        cell = json.loads((copy / "results" / "anomaly" / name).read_text())
        for figure in cell["evaluation"]["suites"]["anomaly"]["figures"]:
            figure["value"] += 0.01 if figure["name"] == "auprc/combined" and figure["value"] else 0
        (other / name).write_text(json.dumps(cell))
    done = make_results(copy)
    assert done.returncode == 0, done.stderr
    seeds = (copy / "docs" / "results" / "stages.md").read_text()
    assert "| `multistage_nce/mnist` | 1 | 11.5 | 0.0559 (0.0551 to 0.0566) | 8.8 (" in seeds
    assert "| `multistage_nce/mnist` | mean (lowest to highest) | 11.5 | 0.0559 | 8.3 (7.8 to 8.8) |" in seeds
    digits = (copy / "docs" / "results" / "anomaly.md").read_text()
    row = next(
        line
        for line in digits.splitlines()
        if line.startswith("| LatentMLE | fully connected | combined | 2 |")
    )
    assert "| 0.419 (0.414 to 0.424) | **0.886 (0.881 to 0.891)** |" in row
    (other / "latent_mle-mnist_anomaly-held_out_label-9.json").unlink()
    assert make_results(copy).returncode == 0
    assert (
        "| LatentMLE | fully connected | combined | 1 |"
        in (copy / "docs" / "results" / "anomaly.md").read_text()
    )


def words(page: Path) -> str:
    """A page without its generated blocks and tables."""
    return re.sub(r"^\|.*\n", "", BLOCK.sub("", page.read_text()), flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_a_claim_a_verdict_and_limits_and_is_short(page: Path) -> None:
    text = words(page)
    assert len(text.split()) <= 1500
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?")
    assert "\n**Claim.** " in text
    assert re.search(r"^\*\*Verdict: (shown|shown in part|not shown)\b", text, re.M)
    assert "\n## Limits\n" in text
    assert BLOCK.search(page.read_text())


def test_the_index_leads_to_every_page_and_repeats_its_verdict() -> None:
    rows = re.findall(r"^\|.*\| (.*) \| \[[^]]*\]\(results/(\w+\.md)", INDEX.read_text(), re.M)
    assert {page for _, page in rows} == {page.name for page in PAGES}
    for said, page in rows:
        verdict = re.search(r"\*\*Verdict: ([\w ]+)", (DOCS / "results" / page).read_text())[1]
        assert said.startswith(f"**{verdict.removesuffix(' for the published chains').strip()}**"), page


ELSEWHERE = {
    "67.6": "the paper's accuracy of the top layer with its energy [P]",
    "52.1": "and without",
    "57.9": "that of the middle layer without",
    ".073": "nats from N(0, I) of 32 coordinates with variance 1.10",
    ".024": "the largest difference of two values of a table",
}


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
    known = [float(n.replace(",", "")) for one in PAGES for n in NUMBER.findall(one.read_text())]
    text = re.sub(r"```.*?```|\]\([^)]*\)|`[^`]*`", "", page.read_text(), flags=re.S)
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    numbers = [number for number in NUMBER.findall(rows) if not re.fullmatch(r"20[12]\d", number)]
    assert len(numbers) > 20
    for number in numbers:
        half = 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9
        assert any(abs(float(number) - other) <= half for other in known), number
