"""The page that compares runs, as HTML."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from lebm.__main__ import main
from lebm.errors import UserError, UserNotice
from lebm.evaluation.intervals import Interval
from lebm.evaluation.record import FORMAT, Figure, SuiteResult
from lebm.report.charts import Chart, chart, histogram
from lebm.report.page import report

HOSTILE = "<script>alert(1)</script>\"'&"


def make_run(folder: Path, number: int) -> Path:
    """A run folder with one of everything, and different numbers in each."""
    (folder / "images" / "samples").mkdir(parents=True)
    Image.fromarray(np.full((40, 60, 3), 20 * number, dtype=np.uint8)).save(
        folder / "images" / "samples" / "test.png"
    )
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (300, 1200, 3), dtype=np.uint8)).save(
        folder / "images" / "latents.png"
    )
    arguments = json.dumps({"seed": number, "note": HOSTILE})
    (folder / "config.yaml").write_text(
        f"seed_everything: 0\nmodel: {{class_path: lebm.estimators.LatentMLE, init_args: {arguments}}}\n"
    )
    summary = {
        "status": "finished",
        "steps": 1000 * number,
        "epochs": number,
        "cpu_time_seconds": 60 * number,
        "wall_time_seconds": 90,
        "seed": 0,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = "".join(f"{10 * step},0,{number / (step + 1)},{'' if step % 2 else step}\n" for step in range(500))
    (folder / "metrics.csv").write_text("step,epoch,loss,val/x\n" + rows)
    figures = [
        Figure.of("auroc/anomaly_score", Interval(0.9, 0.05, 0.9, "bootstrap"), 100, "official"),
        Figure.of("auroc/anomaly_score", Interval(0.1 * number, 0.05, 0.9, "bootstrap"), 100, "lebm"),
    ]
    of_images = [
        Figure.of("reconstruction_mse", Interval(10.0 - number, 1.0, 20.0, "t"), 100, "test"),
        Figure.plain(
            f"frechet_distance/{'pixels8' if number == 1 else 'digits64'}", 70.0 + number, 5000, "train"
        ),
    ]
    of_revision = [Figure.plain("frechet_distance/digits64/generator", 115.0, 2000, "train")]
    part = {
        "histogram": {"low": 0.0, "high": 1.0, "shares": {"normal": [0.5, 0.5], HOSTILE: [0.1, 0.9]}},
        "roc": [[0, 0], [0.2, 0.7], [1, 1]],
        "pr": [[0.1, 1.0], [1.0, 0.3]],
    }
    chains = {
        "prior": {
            "thin": 5,
            "short_run": 60,
            "log_density": [[1.0, 2.0, None, 3.0]],
            "root_mean_square": [1.0],
        }
    }
    own = {"data": {"anomaly_split": "lebm"}}
    suites = {
        "revision": asdict(SuiteResult({"name": "networks alone and revised"}, of_revision)),
        "anomaly": asdict(
            SuiteResult({"name": "held-out label"}, figures, {"lebm/anomaly_score": part}, origin=own)
        ),
        "image": asdict(SuiteResult({"name": "samples against real images"}, of_images)),
        "chains": asdict(SuiteResult({"findings": {"prior": ["healthy: " + HOSTILE]}}, [], chains)),
    }
    content: dict[str, Any] = {
        "run": "r",
        "checkpoint": "c",
        "checkpoint_sha256": "0",
        "weights": "ema",
        "method": "LatentMLE",
        "seed": 0,
        "suites": suites,
    }
    (folder / "evaluation.json").write_text(json.dumps({"lebm_evaluation": FORMAT, **content}))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three runs, the last of which has only been trained."""
    folder = tmp_path_factory.mktemp("report")
    runs = [make_run(folder / name, number) for number, name in ((1, "one"), (2, "two"))]
    bare = folder / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text(
        "seed_everything: 0\nmodel: {class_path: lebm.estimators.MultiStageNCE}\n"
    )
    report([*runs, bare], folder / "report.html")
    return folder / "report.html"


class Outline(HTMLParser):
    """Tags with their attributes, and text."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_summary_has_a_column_for_every_distance_and_each_run_s_own_split(page: Path) -> None:
    section = page.read_text().partition('<section id="summary">')[2]
    table = section[: section.index("</table>")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    head = re.findall(r"<button[^>]*>(.*?)</button>", table)
    of = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    distances = [name for name in head if name.startswith("frechet")]
    assert distances == [
        "frechet_distance/pixels8",
        "frechet_distance/digits64",
    ]  # not those of the revision suite
    assert of["one"]["frechet_distance/pixels8"] == "71<small>n 5,000</small>"
    assert of["one"]["frechet_distance/digits64"] == "not run"
    assert of["two"]["frechet_distance/digits64"].startswith("72<")
    assert of["two"]["auroc/anomaly_score"].startswith("0.2<")


def test_it_is_well_formed_and_asks_for_nothing_outside(page: Path) -> None:
    outline = Outline(page.read_text())
    assert outline.open == []
    for tag, attributes in outline.tags:
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, link)
    policy = next(
        attributes["content"]
        for tag, attributes in outline.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    anchors = {attributes["href"] for tag, attributes in outline.tags if tag == "a"}
    assert anchors == {f"#{attributes['id']}" for tag, attributes in outline.tags if tag == "section"}


def test_nothing_from_a_run_becomes_code(page: Path) -> None:
    text = page.read_text()
    assert text.count("<script>") == 1
    assert "alert(1)" in text
    assert "&lt;script&gt;alert(1)" in text


def test_every_section_shows_the_runs(page: Path) -> None:
    text = page.read_text()
    words = " ".join(Outline(text).words)
    for expected in (
        "0.05 to 0.9",
        "not run",
        "LatentMLE",
        "MultiStageNCE",
        "healthy:",
        "ROC: lebm/anomaly_score",
        "model.init_args.seed",
    ):
        assert expected in words, expected
    assert (
        "seed_everything" not in words.split("Differences of the recipes")[2].split("How it was measured")[0]
    )  # the same in all
    assert text.count("<figcaption>loss</figcaption>") == 1
    cells = re.findall(r'data-value="([^"]+)"', text)
    assert {"0.1", "0.2", "9.0", "8.0"} <= set(cells)


def test_pictures_load_and_large_ones_are_shrunk(page: Path) -> None:
    sources = [attributes["src"] or "" for tag, attributes in Outline(page.read_text()).tags if tag == "img"]
    pictures = [source.split(",", 1)[1] for source in sources if "image/png" in source]
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert len(sizes) == 4
    assert set(sizes) == {(60, 40), (1000, 250)}
    assert page.stat().st_size < 15 * 2**20


def drawn(made: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(made.url.partition("base64,")[2]))


def test_charts_thin_their_points_and_leave_gaps() -> None:
    made = chart(
        "t", ("x", "y"), {"a": [(0.0, 0.0), (1.0, 1.0), (2.0, float("nan")), (3.0, 1e308)], "b": None}
    )
    assert np.isfinite(made.lines["a"][0]).all(axis=1).tolist() == [True, True, False, False]
    assert list(made.lines) == ["a"]
    assert made.moves
    many = chart("t", ("x", ""), {"a": [(float(step), 1.0) for step in range(5000)]})
    assert many.lines["a"][0].shape == (300, 2)
    assert not many.moves
    outline = histogram("t", 0.0, 2.0, {"a": [0.25, 0.75]})
    assert outline.lines["a"][0].tolist() == [[0, 0], [0, 0.25], [1, 0.25], [1, 0.75], [2, 0.75], [2, 0]]
    for each in (made, many, outline, chart("$", ("$x^{", "<"), {"$": []})):
        assert drawn(each).tag.endswith("svg")


def test_a_page_does_not_depend_on_when_it_is_written(page: Path, tmp_path: Path) -> None:
    folders = [page.parent / name for name in ("one", "two", "bare")]
    report(folders, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_from_the_command_line(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(page.parent / "one")
    assert main(["report", one, "--out", str(tmp_path / "r.html")]) == 0
    assert "1 run(s) in" in capsys.readouterr().out
    assert main(["report", one, "--out", str(tmp_path / "r.html")]) == 2
    assert "exists; choose another --out or add --force" in capsys.readouterr().err


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    for name in ("absent", ".", "mine.safetensors"):
        with pytest.raises(UserError, match="not a run folder with config.yaml, .* lebm evaluate measures"):
            report([tmp_path / name], tmp_path / "r.html")


def _with(path: str, value: Any) -> Callable[[str], str]:
    """Changes an entry of a JSON file, named by its keys with strokes between them."""

    def change(text: str) -> str:
        content = json.loads(text)
        *keys, last = path.split("/")
        inner = content
        for key in keys:
            inner = inner[int(key) if isinstance(inner, list) else key]
        inner[last] = value
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("file", "change", "line"),
    [
        ("evaluation.json", _with("suites", []), "not a file that lebm evaluate wrote"),
        ("evaluation.json", _with("suites/anomaly", "text"), "not a file that lebm evaluate wrote"),
        ("evaluation.json", _with("suites/image/figures/0/value", "text"), "damaged (TypeError)"),
        ("evaluation.json", _with("suites/image/figures/0/name", None), "damaged (AttributeError)"),
        ("evaluation.json", _with("suites/anomaly/curves", {"a": {"histogram": 1}}), "damaged (TypeError)"),
        ("evaluation.json", lambda text: "[" * 100_000, "damaged (RecursionError)"),
        ("summary.json", lambda text: "{", "not a JSON file"),
        ("summary.json", _with("steps", "many"), "damaged (TypeError)"),
        ("summary.json", _with("earlier_attempts", [{}]), "damaged (KeyError)"),
        ("test.json", lambda text: '{"metrics": {"test/auroc": "text"}}', "damaged (TypeError)"),
        ("test.json", lambda text: '{"metrics": []}', "damaged (AttributeError)"),
        ("config.yaml", lambda text: "model: [1]", "damaged (TypeError)"),
        ("metrics.csv", lambda text: text + "5000,1,text,1\n", "cells that are not numbers at a step: 1"),
        ("metrics.csv", lambda text: text + "5000,1," + "1" * 200_000, "damaged (Error)"),
        ("scores.csv", lambda text: "index,anomaly_score\n0," + "1" * 200_000, "scores.csv: damaged"),
        ("images/samples/test.png", lambda text: text[:60], "damaged (OSError)"),
    ],
)
def test_a_damaged_file_is_left_out_with_a_line_and_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, change: Callable[[str], str], line: str
) -> None:
    run, other = make_run(tmp_path / "run", 1), make_run(tmp_path / "other", 2)
    for folder in (run, other):
        (folder / "images" / "latents.png").unlink()  # large, so it takes long
    path = run / file
    text = path.read_bytes().decode("latin-1") if path.exists() else ""
    path.write_text(change(text), encoding="latin-1")
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"lebm: {path}: ")
    assert line in said
    assert said.rstrip().endswith("left out")
    page = (tmp_path / "r.html").read_text()
    assert str(escape(said.removeprefix("lebm: ").rstrip())) in page
    cells = re.findall(r'data-value="([^"]+)"', page)
    assert {"9.0", "8.0"} - set(cells) == ({"9.0"} if file == "evaluation.json" else set())
    assert {"1000", "2000"} - set(cells) == ({"1000"} if file == "summary.json" else set())
    assert page.count('class="chart"') >= 4


def test_numbers_near_the_largest_are_shown(tmp_path: Path) -> None:
    """They break a line of a chart as infinity does, and a run with them is compared with others."""
    run, other = make_run(tmp_path / "run", 1), make_run(tmp_path / "other", 2)
    (run / "metrics.csv").write_text("step,loss\n0,1e308\n10,-1e308\n20,1\n30,2\n1e308,3\n")
    evaluation = run / "evaluation.json"
    evaluation.write_text(_with("suites/image/figures/0/value", 1e308)(evaluation.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report([run, other], tmp_path / "r.html")
    assert 'data-value="1e+308"' in (tmp_path / "r.html").read_text()


def test_scored_rows_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1)
    rows = [f"{number},class{number}/{HOSTILE[:4]}.png,{number / 4}" for number in range(30)]
    table = "\n".join(["index,path,anomaly_score", *rows, "30,broken.png,nan", "31,broken.png,inf"])
    (run / "scores.csv").write_text(table)
    for end, size in (("most", 31), ("least", 33)):
        Image.new("RGB", (size, 20)).save(run / f"scores-{end}.png")
    report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    section = text.split("Most anomalous rows</h2>")[1].split("<h2")[0]
    shown = re.findall(r'data-label="index">(\d+)<', section)
    assert shown == [str(number) for number in range(29, 19, -1)]
    assert "class29/&lt;scr.png" in section
    assert "10 of 32 rows of <code>scores.csv</code>" in section
    assert "most anomalous of run" in section
    assert "least anomalous of run" in section
    assert section.count("<img") == 2


def test_the_newest_scores_are_shown_and_others_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1)
    (run / "scores.csv").write_text("index,anomaly_score\n0,1.5\n")
    (run / "scores-2.csv").write_text("index,combined\n7,0.25\n")
    os.utime(run / "scores.csv", (1, 1))
    report([run], tmp_path / "report.html")
    assert "highest combined first" in (tmp_path / "report.html").read_text()
    for content in ("index,other\n0,1\n", "index,anomaly_score\n0,much\n"):
        (run / "scores-2.csv").write_text(content)
        with pytest.warns(UserNotice, match=r"scores-2\.csv: damaged"):
            report([run], tmp_path / "other.html")
        assert "rows of <code>scores" not in (tmp_path / "other.html").read_text()
