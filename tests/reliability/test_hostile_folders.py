"""Links, pipes and bombs in run folders and recipes: one line, soon, nothing read or written elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.cli.evaluate import _print_table
from lebm.data import open_text
from lebm.errors import UserError
from lebm.run.folder import inside
from lebm.run.loggers import stored_run_id
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


@pytest.mark.parametrize("name", ["images/a.png", "images/grid/test.png", "metrics.csv", "summary.json"])
def test_report_follows_no_link_and_waits_for_no_pipe(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = trained / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Path("secret").write_text(f'{{"status": "{SECRET}"}}')
    for make in (lambda: file.symlink_to(Path("secret").absolute()), lambda: os.mkfifo(file)):
        file.unlink(missing_ok=True)
        make()
        capsys.readouterr()
        if file.is_symlink() or "grid" not in name:
            status = main(["report", str(trained), "--force"])
            one_line(capsys, status, file.name, report=True)
            assert SECRET not in Path("report.html").read_text()


@pytest.mark.parametrize("name", ["config.yaml", "evaluation.json", "images"])
def test_report_reads_inside_the_folder(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/secret.png").write_text(SECRET)
    target = Path("elsewhere") if name == "images" else Path("elsewhere/secret.png")
    (trained / name).unlink(missing_ok=True)
    (trained / name).symlink_to(target.absolute())
    capsys.readouterr()
    status = main(["report", str(trained)])
    one_line(capsys, status, f"{trained / name}: a link out of the run folder", report=True)
    assert SECRET not in Path("report.html").read_text()


LINKS = [("diagnose", "diagnosis")]


@pytest.mark.parametrize(("verb", "name"), LINKS)
def test_no_verb_follows_a_link_out(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    outside = Path("outside").absolute()
    place = trained / name
    if place.is_dir():
        place.rename(outside)
    elif name == "diagnosis":
        outside.mkdir()
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        outside.write_bytes(place.read_bytes() if place.exists() else SECRET.encode())
        place.unlink(missing_ok=True)
    place.symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    capsys.readouterr()
    one_line(capsys, lebm(verb, trained), str(place), "a link out of the run folder")
    assert {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before


def test_inside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "own").symlink_to(run / "images")
    (run / "out").symlink_to(tmp_path)
    for name in ("images", "own/a.png", "new.json", "images/../new.json"):
        assert inside(run, run / name) == run / name
    for name in ("out", "out/a.png", "..", "../other", "/etc/passwd"):
        with pytest.raises(UserError, match="a link out of the run folder"):
            inside(run, run / name)


def test_a_stored_id_is_a_name() -> None:
    for value, expected in {"1hfs0r5b": "1hfs0r5b", "my-run_2": "my-run_2", "../x": None, "": None}.items():
        assert stored_run_id({"callbacks": {"WandbRun": {"run_id": value}}}) == expected
    for damaged in ({}, {"callbacks": {"WandbRun": 3}}, {"callbacks": {"WandbRun": {"run_id": 3}}}):
        assert stored_run_id(damaged) is None


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
