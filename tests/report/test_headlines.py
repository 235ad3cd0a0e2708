"""What a reader sees first: pictures, values, the best of them, and only what differs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lebm.report.figures import best_of, better
from lebm.report.page import report


def _run(folder: Path, metrics: dict[str, float | None], callbacks: str = "[]", curve: str = "") -> Path:
    (folder / "images" / "samples").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "images" / "samples" / "latest.png")
    (folder / "config.yaml").write_text(
        f"model: {{class_path: lebm.estimators.LatentMLE}}\ntrainer: {{callbacks: {callbacks}}}\n"
    )
    cost = {"cpu_time_seconds": 90, "wall_time_seconds": 120, "steps": 4320, "epochs": 1}
    (folder / "summary.json").write_text(json.dumps({"status": "finished", **cost}))
    (folder / "test.json").write_text(json.dumps({"metrics": metrics}))
    (folder / "metrics.csv").write_text("step,moving,still,lost\n" + curve)
    return folder


def _page(tmp_path: Path, *runs: Path) -> str:
    report(list(runs), tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def _section(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_the_head_of_a_run_has_one_picture_two_values_and_the_cost(tmp_path: Path) -> None:
    values = {"test/reconstruction_mse": 0.05, "test/auroc": 0.75, "test/auprc": 0.5, "test/other": 1.0}
    head = _section(_page(tmp_path, _run(tmp_path / "a", values)), "runs")
    assert head.count("<img") == 1
    assert re.findall(r"<b>(.*?)</b> (\w+)<small>(.*?)</small>", head) == [
        ("0.75", "auroc", "higher is better"),
        ("0.05", "reconstruction_mse", "lower is better"),
    ]
    assert "1.5 min of CPU time, 2.0 min of wall time, 4,320 steps, 1 epoch<" in head


def test_a_run_without_values_says_how_to_get_them(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", {})
    (run / "test.json").unlink()
    assert "lebm test RUN" in _section(_page(tmp_path, run), "runs")


def test_the_test_pass_is_in_both_tables_and_the_best_is_marked(tmp_path: Path) -> None:
    page = _page(
        tmp_path,
        _run(tmp_path / "a", {"test/reconstruction_mse": 0.05, "test/auroc": 0.75, "test/kl": 1.0}),
        _run(tmp_path / "b", {"test/reconstruction_mse": 0.04, "test/auroc": 0.5, "test/kl": 2.0}),
        _run(tmp_path / "c", {"test/reconstruction_mse": None}),
    )
    for section in ("summary", "figures"):
        marked = re.findall(r'data-value="([^"]+)">[^<]* <mark>best</mark>', _section(page, section))
        assert sorted(marked) == ["0.04", "0.75"]
    assert "not finite" in _section(page, "summary")
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in _section(page, "figures").split("<tr>")]
    assert ["test pass", "auroc", "test", "higher", "0.75 <mark>best</mark>", "0.5", "not run"] in rows
    assert ["test pass", "kl", "test", "", "1", "2", "not run"] in rows


def test_sentences_stand_where_a_picture_would(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", {"test/perplexity": 30.0})
    (run / "images" / "samples" / "latest.png").unlink()
    (run / "samples").mkdir()
    (run / "samples" / "latest.txt").write_text("".join(f"number {n} <b>\n" for n in range(30)))
    head = _section(_page(tmp_path, run), "runs")
    first, more = head.split("<details>")
    assert re.findall(r"<li>(.*?)</li>", first) == [f"number {n} &lt;b&gt;" for n in range(5)]
    assert len(re.findall("<li>", more)) == 15
    (run / "samples" / "test.txt").write_text("the test pass\n")
    assert "<li>the test pass</li>" in _section(_page(tmp_path, run), "runs")


def test_curves_that_do_not_change_are_folded(tmp_path: Path) -> None:
    curve = "0,1.0,3.0,nan\n10,2.0,3.0,nan\n"
    section = _section(_page(tmp_path, _run(tmp_path / "a", {}, curve=curve)), "curves")
    shown, folded = section.split("<details>")
    assert re.findall("<figcaption>(.*?)</figcaption>", shown) == ["moving"]
    assert re.findall("<figcaption>(.*?)</figcaption>", folded) == ["still", "lost"]
    assert "do not change: 2<" in folded


def test_callbacks_are_compared_by_class(tmp_path: Path) -> None:
    grid, latents = "{class_path: x.Grid, init_args: {n: 4}}", "{class_path: x.Latents, init_args: {n: 9}}"
    more = "{class_path: x.Grid, init_args: {n: 5}}"
    same = [
        _run(tmp_path / "a", {}, f"[{grid}, {latents}]"),
        _run(tmp_path / "b", {}, f"[{latents}, {grid}]"),
    ]
    assert "recipes are equal" in _section(_page(tmp_path, *same), "recipes")
    other = _run(tmp_path / "c", {}, f"[{grid}, {more}, {latents}]")
    rows = re.findall(r"<tr>(.*?)</tr>", _section(_page(tmp_path, same[1], other), "recipes"))[1:]
    names = [re.findall(r"<td[^>]*>(.*?)</td>", row)[0] for row in rows]
    assert names == ["trainer.callbacks[Grid 2].class_path", "trainer.callbacks[Grid 2].init_args.n"]


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("auroc/anomaly_score", [0.1, 0.3, None], {1}),
        ("frechet_distance/digits64", [2.0, 1.0, 1.0], {1, 2}),
        ("test/reconstruction_mse", [float("nan"), 2.0, 3.0], {1}),
        ("acceptance/prior", [0.1, 0.9], set()),
        ("auprc_lowest", [0.1, 0.9], set()),
        ("auroc/anomaly_score", [0.5, 0.5], set()),
        ("auroc/anomaly_score", [0.5, None], set()),
    ],
)
def test_the_best_needs_a_direction_and_a_difference(
    name: str, values: list[float | None], best: set[int]
) -> None:
    assert best_of(name, [{"value": value} for value in values]) == best


def test_directions() -> None:
    assert [better(name) for name in ("val/auroc", "fid", "kl")] == ["higher", "lower", ""]
