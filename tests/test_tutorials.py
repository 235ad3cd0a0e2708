"""The tutorials run, print what their pages say, and draw the pictures that their pages show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

import lebm
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
    assert len(blocks) == len(re.findall("^```(?:python|sh|yaml)\n", page.read_text(), re.M)) >= 3
    for block in blocks:
        code = block["code"]
        if block["language"] == "sh":
            assert {first for first, *_ in tutorials.commands(code)} == {"lebm"}, code
        elif block["language"] == "yaml":
            assert tutorials.FILE.match(code), code
            assert yaml.safe_load(code), code
        else:
            compile(code, page.name, "exec")
            prints = "print(" in code and not tutorials.FILE.match(code)
            assert prints == (block["printed"] is not None), code


def test_blocks_run_as_files_as_python_and_as_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# part.py\nVALUE = 1\n```\n\n```python\nimport part\n\nprint(part.VALUE)\n```\n\n"
        "```text\n2\n```\n\n```sh\nlebm --version\n```\n\n```sh\nlebm --version \\\n    # twice\n```\n\n"
        "```text\n```\n"
    )
    tutorials.rewrite(page)
    assert tutorials.outputs(page) == [
        ("", None),
        ("1\n", "1\n"),
        ("", None),
        (f"lebm {lebm.__version__}\n",) * 2,
    ]
    assert "part" not in sys.modules
    assert str(tmp_path) not in sys.path
    page.write_text("```sh\nlebm cat no_recipe\n```\n")
    with pytest.raises(RuntimeError, match="page.md, block 1: lebm cat no_recipe ended with 2"):
        tutorials.outputs(page)
