"""The tutorials run, print what their pages say, and draw the pictures that their pages show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import tutorials

PAGES = sorted(tutorials.PAGES.glob("*.md"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def assert_alike(now: str, said: str) -> None:
    """The same words, and numbers within a tenth: machines round differently, and chains amplify that."""
    assert NUMBER.sub("#", now).split() == NUMBER.sub("#", said).split()
    for one, other in zip(NUMBER.findall(now), NUMBER.findall(said), strict=True):
        assert float(one) == pytest.approx(float(other), rel=0.1, abs=0.1), f"{now!r} is not {said!r}"


def test_outputs_are_compared_by_words_and_by_numbers():
    assert_alike("mean 1.02; gap -0.3", "mean 1.00; gap -0.35")
    for other in ("mean 2.00; gap -0.35", "sum 1.00; gap -0.35", "mean 1.00"):
        with pytest.raises(AssertionError):
            assert_alike("mean 1.02; gap -0.3", other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_and_draws_what_its_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for now, said in tutorials.outputs(page):
        assert_alike(now, said or "")
    shown = {Path(name).name for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())}
    assert shown == {file.name for file in tmp_path.glob("*.png")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_tutorial_compiles_and_ends_in_output_where_it_prints(page):
    """The quick part of the test above."""
    blocks = list(tutorials.BLOCK.finditer(page.read_text()))
    assert len(blocks) == page.read_text().count("```python\n") >= 3
    for block in blocks:
        compile(block["code"], page.name, "exec")
        assert ("print(" in block["code"]) == (block["printed"] is not None), block["code"]
