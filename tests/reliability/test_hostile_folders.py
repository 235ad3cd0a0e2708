"""Unusual names and files: one line, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.cli.evaluate import _print_table
from lebm.data import open_text
from tests.cli.conftest import Run, lebm, tiny  # noqa: F401


def test_markup_in_names_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"name": "mse[/i]", "split": "[red]test", "value": 1.0, "low": None, "high": None, "n": 3}
    figure["details"] = {}
    suite = {
        **{"figures": [figure], "protocol": {"name": "p"}, "skipped": "", "wall_time_seconds": 1.0},
        "origin": {"hardware": {"cpu": "x", "threads": 1, "gpus": []}, "chains": {}},
    }
    content = {"method": "M", "run": "mk[/b]", "weights": "ema", "seed": 0, "suites": {"image": suite}}
    _print_table(content, ("image",))
    shown = capsys.readouterr().out
    for text in ("mk[/b]", "mse[/i]", "[red]test"):
        assert text in shown


@pytest.mark.parametrize("parts", [["a" * 300], ["b" * 200] * 20, ["c" * 200] * 30])
def test_a_run_folder_with_too_long_a_name(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], parts: list[str]
) -> None:
    run = "/".join(parts)
    assert lebm("fit", "-c", tiny, "--run_dir", run, "--trainer.max_steps", 1) == 2
    error = capsys.readouterr().err
    assert "too long" in error
    assert error.count("\n") == 1
    for words in (["test", run], ["sample", run], ["report", run], ["fit", "--resume", run]):
        capsys.readouterr()
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_lines_that_end_in_cr(tmp_path: Path) -> None:
    for name, end in (("cr", b"\r"), ("lf", b"\n"), ("crlf", b"\r\n")):
        file = tmp_path / f"{name}.txt"
        file.write_bytes(end.join([b"one two", b"", b"three", b"four"]) + end)
        found = open_text(str(file))
        assert (found.texts, found.rows) == (["one two", "three", "four"], [0, 2, 3]), name
