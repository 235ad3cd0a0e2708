"""Names with control characters: a terminal that shows what a command says obeys none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.cli.evaluate import _measured, _print_table
from lebm.errors import printable, tell
from tests.cli.conftest import Run, lebm, tiny, trained  # noqa: F401

CLEAR = "\x1b[2J"  # clears the screen
CLIPBOARD = "\x1b]52;c;AAAA\x07"


VERBS = {
    "test": [],
    "sample": ["-n", 2],
    "reconstruct": [],
    "score": ["--data", "embedded:mnist", "--limit", 4],
    "fit": [],
    "report": [],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_folder_with_escapes_in_its_name(
    lebm: Run, trained: Path, capfd: pytest.CaptureFixture[str], verb: str
) -> None:
    run = shutil.move(trained, f"runs/t{CLEAR}{CLIPBOARD}y")
    capfd.readouterr()
    if verb == "report":
        assert main(["report", run, "--out", f"{run}/page.html"]) == 0
    else:
        lebm(verb, *(["--resume"] if verb == "fit" else []), run, *VERBS[verb])
    said = capfd.readouterr()
    assert "t?[2J?]52;c;AAAA?y" in said.out + said.err
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_the_table_of_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"name": f"a{CLEAR}", "split": f"b{CLEAR}", "value": 1.0, "low": None, "high": None, "n": 3}
    suite = {
        **{"figures": [{**figure, "details": {}}], "protocol": {"name": f"c{CLEAR}"}, "skipped": f"d{CLEAR}"},
        **{"wall_time_seconds": 1.0, "origin": {"hardware": {"cpu": "x", "threads": 1, "gpus": []}}},
    }
    suite["origin"]["chains"] = {f"e{CLEAR}": 3}
    content = {"method": "M", "run": f"f{CLEAR}", "weights": "ema", "seed": 0, "suites": {"image": suite}}
    tell(f"lebm: image: {_measured(suite)}")
    _print_table(content, ("image",))
    shown = capsys.readouterr().out
    assert all(f"{letter}?[2J" in shown for letter in "abcdf")
    assert "\x1b" not in shown


def test_a_recipe_with_escapes_in_its_name(lebm: Run, tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny, f"r{CLEAR}.yaml")
    for verb, words in (("validate-recipe", ["--trust", "tests"]), ("cat", [])):
        capfd.readouterr()
        main([verb, f"r{CLEAR}.yaml", *words])
        said = capfd.readouterr()
        assert said.out
        assert "\x1b" not in said.out + said.err


def test_printable_keeps_lines_and_letters() -> None:
    assert printable("a\tb\nç 中 🙂") == "a\tb\nç 中 🙂"
    assert printable("\x1b[2J\x9b\r\x00\u202e") == "?[2J????"
