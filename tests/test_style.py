"""Rules of style that a machine can check, on the pages of the documentation and the headers of recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.notebooks import text as text_of

ROOT = Path(__file__).parents[1]
KINDS = ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "recipes/**/*.yaml")
PAGES = sorted(page for kind in KINDS for page in ROOT.glob(kind))
RULES = {
    "a word of the wrong register": r"\b(mend\w*|told|anew|rooms?|house(?! number)|strangers?|feels?"
    r"|walk\w*|as far as|said of|refus\w+|gets? nothing)\b",
    "'is no' in place of 'is not a'": r"\b(is|are|was|were) no\b(?! (longer|more|less|better|worse)\b)",
    "a decimal without its leading zero": r"(?<![\w.])\.\d",
    "Frechet without its accent": r"\bFrechet\b",
    "a default that is not written as '(default: X)'": r"\bif not given\b",
}
NOT_PROSE = [
    re.compile(pattern, re.M | re.S)
    for pattern in (
        r"^```.*?^```",
        r"^<!-- (?!end|run).*?^<!-- end -->",
        r"^    [^\n]*",
        r"`[^`\n]*`",
        r"\]\([^)]*\)",
    )
]
"""Blocks of code, generated blocks, indented code, code spans, and targets of links."""


def prose(path: Path) -> str:
    """The prose of a page, or the header of a recipe, with the line numbers of the file."""
    text = text_of(path)
    if path.suffix == ".yaml":
        return "".join(re.findall(r"\A(?:#.*\n)*", text))
    for pattern in NOT_PROSE:
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    return text


def faults(text: str) -> list[str]:
    """Every part of a text that breaks a rule, with its line."""
    lines = enumerate(text.splitlines(), start=1)
    return [
        f"line {number}: {found[0]!r} is {rule}"
        for number, line in lines
        for rule, pattern in RULES.items()
        for found in re.finditer(pattern, line)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_style_of_a_page(path: Path) -> None:
    assert faults(prose(path)) == []


def test_each_rule_finds_its_fault(tmp_path: Path) -> None:
    text = "There is no way.\nIt is told, .5 of it.\nFrechet, 1 if not given\n"
    text += "```\n.5 told\n```\nIt is no longer `.5`, and 0.5.\n"
    page = tmp_path / "page.md"
    page.write_text(text)
    found = [fault.partition(" is ")[2] for fault in faults(prose(page))]
    assert sorted(found) == sorted(RULES)
