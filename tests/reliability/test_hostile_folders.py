"""Pipes and bombs in run folders and recipes: one line, soon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from lebm.__main__ import main
from lebm.cli.evaluate import _print_table
from lebm.config import plain_yaml
from lebm.data import open_text
from lebm.errors import UserError
from tests.cli.conftest import Run, lebm, tiny, trained  # noqa: F401

SECRET = "hunter2-is-secret"


def one_line(capsys: pytest.CaptureFixture[str], status: int, *expected: str, report: bool = False) -> None:
    """An error; of a report, the file that it leaves out."""
    error = capsys.readouterr().err
    assert status == (0 if report else 2), error
    assert error.startswith("lebm: " if report else "lebm: error: "), error
    assert error.endswith("left out\n") or not report, error
    assert error.count("\n") == 1, error
    assert SECRET not in error
    for part in expected:
        assert part in error, error


def merge_bomb(levels: int = 12) -> str:
    lines = ["a0: &a0 {" + ", ".join(f"k{number}: 1" for number in range(10)) + "}"]
    for level in range(1, levels):
        below = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {{<<: [{below}]}}")
    return "\n".join(lines) + "\n"


BOMBS = {
    "merge keys": (merge_bomb(), "merge keys"),
    "base 60": ("a: 1" + ":59" * 200_000 + "\n", "a number of 600001 characters"),
    "base 60 with a point": ("a: 1" + ":59" * 200_000 + ".5\n", "a number of 600003 characters"),
    "digits": ("a: " + "9" * 500_000 + "\n", "a number of 500000 characters"),
    "date": ("a: 2026-13-45\n", "cannot be read"),
}


@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.parametrize("verb", ["validate-recipe", "fit", "test", "reconstruct", "report"])
def test_yaml_bombs_end_soon(tiny: Path, capsys: pytest.CaptureFixture[str], case: str, verb: str) -> None:
    text, expected = BOMBS[case]
    if verb == "reconstruct":
        from lebm.config.run_data import stored_settings

        Path("run").mkdir()
        Path("run/config.yaml").write_text(text)
        began = time.process_time()
        with pytest.raises(UserError, match=expected):
            stored_settings(Path("run"))
        assert time.process_time() - began < 2
        return
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text)
    words = {"fit": ["-c", "run/config.yaml"], "validate-recipe": ["run/config.yaml"]}.get(verb, ["run"])
    began = time.process_time()
    status = main([verb, *words])
    assert time.process_time() - began < 10  # with the imports of the verb
    one_line(capsys, status, "config.yaml", expected, report=verb == "report")


def test_honest_yaml_is_read_as_before() -> None:
    text = (
        "base: &b {a: 1, t: 1:30:00}\nmore: {<<: *b, c: 2.5, d: 1_000, e: 0x1f, f: 2026-01-02}\nx: [~, on]\n"
    )
    assert plain_yaml.load(text) == yaml.safe_load(text)
    several = "a: &a {p: 1}\nb: &b {q: 2}\nc: {<<: [*a, *b], r: 3}\n"
    assert plain_yaml.load(several) == yaml.safe_load(several)
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        plain_yaml.load("a: !!python/object/apply:os.system [true]")


def test_a_reader_may_change_what_it_read() -> None:
    """A text is read once; each reader has its own copy."""
    text = "a: {b: [1]}\n"
    plain_yaml.load(text)["a"]["b"].append(2)
    assert plain_yaml.load(text) == {"a": {"b": [1]}}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("section", ["data", "model"])
def test_a_sub_configuration_that_never_ends(
    tiny: Path, capsys: pytest.CaptureFixture[str], kind: str, section: str
) -> None:
    os.mkfifo("pipe")
    recipe = yaml.safe_load(tiny.read_text())
    recipe[section] = "pipe" if kind == "pipe" else "/dev/zero"
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    one_line(capsys, main(["fit", "-c", "bad.yaml"]), section, "is neither a file nor a folder")


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
    one_line(capsys, lebm("fit", "-c", tiny, "--run_dir", run, "--trainer.max_steps", 1), "too long")
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
