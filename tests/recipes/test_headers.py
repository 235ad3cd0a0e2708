"""The comment at the head of every recipe: what it says, and whether the pages of results agree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lebm.config import recipes
from lebm.estimators import LatentModel
from tests.recipes.test_recipes import ALL, LOGGERS, OVERLAYS, build, header


def command(name: str, kind: str) -> list[str]:
    """The words after ``lebm fit`` of a command in the header."""
    (line,) = (line for line in header(name) if re.match(rf"# {kind}\s", line))
    words = shlex.split(line.removeprefix(f"# {kind}").split("&&")[0])
    assert words[:2] == ["lebm", "fit"], line
    return words[2:]


@pytest.mark.parametrize("name", ALL)
def test_header_says_what_a_reader_needs(name: str) -> None:
    lines = header(name)
    text = "\n".join(lines)
    assert 20 < len(recipes.title(ALL[name])) <= 100
    assert re.search(r"^# Status +\S", text, re.MULTILINE)
    if name not in OVERLAYS:
        for word in ("Trains", "Aims at"):
            assert re.search(rf"^# {word} +\S", text, re.MULTILINE), word
    # a number that was only remembered is not printed as the paper's
    assert "[M" not in text
    written = ALL[name].read_text().splitlines()
    assert max(map(len, written)) <= 140  # commands; the others are shorter
    assert max(len(line) for line in written if not re.match("# (Run|Override) ", line)) <= 110
    run_words = command(name, "Run")
    on = "quickstart" if name in LOGGERS else "latent_mle/mnist_published"
    on = {"prior/mixture": "latent_mle/mnist_normal_base"}.get(name, on)  # it needs an encoder
    assert run_words[:2] == ["-c", on if name in OVERLAYS else name]
    assert name in run_words
    assert command(name, "Override")[: len(run_words[:2])] == run_words[:2]


LARGE = [name for name in ALL if re.search("celeba|cifar|svhn|lsun|ptb|snli|yahoo", name)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in ALL]
)
def test_commands_of_the_header_are_accepted(name: str) -> None:
    first, changed = (build(command(name, kind)) for kind in ("Run", "Override"))
    assert isinstance(first.model, LatentModel)
    texts = {cli.parser.dump(cli.config, skip_validation=True) for cli in (first, changed)}
    assert len(texts) == 2


DOCS = Path(__file__).parents[2] / "docs"
MEASURED = [name for name, path in ALL.items() if recipes.is_measured(path)]


@pytest.mark.parametrize("name", MEASURED)
def test_a_run_at_full_length_is_on_the_page_that_the_header_names(name: str) -> None:
    said = status(name)
    pages = {page.relative_to(DOCS).as_posix(): page.read_text() for page in DOCS.rglob("*.md")}
    named = re.findall(r"docs/([\w/]+\.md)", said) or list(pages)
    text = "\n".join(pages[page] for page in named)
    assert re.search(rf"(?<![\w/]){re.escape(name)}(?![\w/])", text), f"{name} is not on {named}"
    missing = [number for number in re.findall(r"\d*\.\d+", said) if not on_page(number, text)]
    assert not missing, f"{missing} of the header of {name} are not on {named}"


def status(name: str) -> str:
    """What the header says after ``Status``, as one line."""
    text = "\n".join(header(name))
    (said,) = re.findall(r"^# Status +(.*(?:\n# {3,}\S.*)*)", text, re.MULTILINE)
    return re.sub(r"\n# +", " ", said)


def on_page(number: str, text: str) -> bool:
    """Whether a page has the number, or one with more digits that is rounded to it."""
    digits = len(number.partition(".")[2])
    return any(
        len(other.partition(".")[2]) >= digits and abs(float(other) - float(number)) <= 0.51 * 10**-digits
        for other in re.findall(r"(?<![\d.])\d*\.\d+", text)
    )


def test_a_number_is_found_where_it_is_rounded() -> None:
    assert on_page(".053", "the error is .0526 (.0511 to .0542)")
    assert not on_page(".053", "the error is .0551, and 1.053 of another")
