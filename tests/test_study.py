"""Studies: what is trained, what is skipped, the lines of results, and tables of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.__main__ import main
from lebm.study import Study, read_cells


def cell(seed: int, distance: list[float | None]) -> dict[str, Any]:
    made = {"command": "lebm fit", "cpu_minutes": 2.0, "versions": None, "hardware": None, "started": None}
    settings = {"recipe": "a", "seed_everything": seed}
    return {"cell": "own", "settings": settings, **made, "steps": 60_000, "figures": {"distance": distance}}


def test_a_row_has_the_interval_of_one_cell_and_the_range_of_several(tmp_path: Path) -> None:
    one, two, three = cell(0, [4.0, 3.0, 6.0]), cell(1, [5.0, 4.5, 5.5]), cell(2, [9.0, None, None])

    def row(*cells: Any, **more: Any) -> str:
        """The last line of the table of some cells, by a study with one row."""
        columns = {"seeds": ["seeds", ""], "ms": ["ms_per_step", "{:.0f}"], "d": ["{figure}", "{:.1f}"]}
        wanted = ["first", {"cell": "own", "recipe": "a", "$figure": "distance"}]
        table = {"head": ["row"], "rows": [wanted], "columns": columns, **more}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"cells": {}, "tables": {"one": table}}))
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
        return Study(tmp_path / "own.yaml").table("one").splitlines()[2]

    assert row(one) == "| first | 4.0 (3.0 to 6.0) | 2 | 1 |"  # safe_dump sorts the columns
    assert row(one, two, three) == "| first | 6.0 (4.0 to 9.0) | 2 | 3 |"
    assert row(one, two, three, over="median") == "| first | 5.0 (4.0 to 9.0) | 2 | 3 |"
    assert row(one, two, three, spread=False) == "| first | 6.0 | 2 | 3 |"
    other = {**one, "settings": {"recipe": "b", "seed_everything": 0}}
    assert row(other) == "| first | not run |  |  |"


def test_a_run_trains_missing_cells_only_and_appends_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the processes, which leaves what training and evaluation leave."""
    plan = {
        "cases": {"prior": {"flat": {}, "free": {"recipe": "b -c prior/x", "settings": {"p": {"q": 1.5}}}}},
        "recipe": "a",
        "settings": {"trainer.max_epochs": 3},
        "axes": {"held_out_label": [1, 4]},
        "evaluate": "--suite image",
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"cells": {"c": plan}, "data": "mnist"}))
    made = {"cell": "c", "settings": {"prior": "flat", "held_out_label": 1}}
    (tmp_path / "own.jsonl").write_text(json.dumps(made) + "\n")
    seen: list[tuple[str, ...]] = []

    def process(*words: str, threads: int) -> None:
        assert threads == 1
        seen.append(words)
        run = Path(words[words.index("--run_dir") + 1] if "--run_dir" in words else words[3])
        run.mkdir(parents=True, exist_ok=True)
        summary = {"status": "finished", "cpu_time_seconds": 60.0, "versions": {}, "hardware": {}, "steps": 7}
        summary["earlier_attempts"] = [{"cpu_time_seconds": 30.0}]
        (run / "summary.json").write_text(json.dumps(summary))
        figure = {"name": "mse", "value": 1.0, "low": 0.5, "high": 2.0}
        (run / "evaluation.json").write_text(json.dumps({"suites": {"image": {"figures": [figure]}}}))

    monkeypatch.setattr("lebm.study.command", process)
    study = Study(tmp_path / "own.yaml")
    assert study.run(tmp_path / "runs", None, Path("/data")) == []
    lines = read_cells(study.results)
    assert [line["settings"] for line in lines[1:]] == [
        {"prior": "flat", "held_out_label": 4},
        {"prior": "free", "held_out_label": 1},
        {"prior": "free", "held_out_label": 4},
    ]
    flag = "--data.init_args.held_out_label 4"
    assert lines[1]["command"] == f"lebm fit -c a --trainer.max_epochs 3 {flag}"
    assert (
        lines[3]["command"] == f"lebm fit -c b -c prior/x --trainer.max_epochs 3 --p '{{\"q\": 1.5}}' {flag}"
    )
    assert lines[1]["figures"] == {"mse": [1.0, 0.5, 2.0]}
    assert lines[1]["cpu_minutes"] == 1.5
    assert seen[0][-5:-3] == ("--data.init_args.path", "/data/mnist")
    before = len(seen)
    assert study.run(tmp_path / "runs") == []
    assert len(seen) == before


PLAN = """
cells:
  sizes:
    recipe: quickstart
    settings: {trainer.max_steps: 2, trainer.callbacks: null, data.init_args.limit_eval: 40}
    axes: {latents: [2, 3]}
    evaluate: --suite anomaly --limit 40
  broken:
    recipe: quickstart
    settings: {latents: 0}
tables:
  sizes:
    head: [latents]
    rows:
      - [2, {cell: sizes, latents: 2}]
      - [3, {cell: sizes, latents: 3}]
    columns:
      AUPRC: [auprc/anomaly_score, "{:.2f}"]
      steps: [steps, "{:.0f}"]
"""


def test_a_plan_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cell that fails stops no other and has no line; a second run has nothing left but that cell."""
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)
    assert main(["study", "run", "plan.yaml", "runs"]) == 1
    shown = capfd.readouterr()
    assert "runs/broken: failed, because a command ended with status 2" in shown.err + shown.out
    assert "next: lebm study table plan.yaml" in shown.err + shown.out
    assert [line["settings"] for line in read_cells(Study(Path("plan.yaml")).results)] == [
        {"latents": 2},
        {"latents": 3},
    ]
    assert main(["study", "run", "plan.yaml", "runs", "--only", "sizes"]) == 0
    capfd.readouterr()
    assert main(["study", "table", "plan.yaml"]) == 0
    rows = capfd.readouterr().out.splitlines()
    assert rows[0] == "| latents | AUPRC | steps |"
    assert [row.split(" | ")[-1] for row in rows[2:4]] == ["2 |", "2 |"]
    assert all(0 < float(row.split(" | ")[1].split(" (")[0]) <= 1 for row in rows[2:4])
    assert "`lebm study run plan.yaml FOLDER --only sizes`" in rows[-1]
    Path("plan.yaml").write_text(PLAN.replace("auprc/anomaly_score", "auprc"))
    assert main(["study", "table", "plan.yaml"]) == 2
    assert "plan.yaml: no cell has the figure auprc; there are auprc/" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nothing.yaml", "runs"], "nothing.yaml: no such file"),
        (["run", "plan.yaml"], "name a folder for the runs"),
        (["run", "plan.yaml", "runs", "--only", "size"], "no cells 'size'; it has sizes, broken"),
        (["table", "plan.yaml", "size"], "no table 'size'; it has sizes"),
        (["table", "empty.yaml"], "a plan needs a mapping `cells`"),
        (["table", "typo.yaml"], "typo.yaml: cells one: unknown key 'fit'; the keys are recipe settings"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)
    Path("empty.yaml").write_text("tables: {}\n")
    Path("typo.yaml").write_text("cells: {one: {fit: --seed_everything 1}}\n")
    assert main(["study", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_the_plan_of_the_guide_names_figures_that_exist() -> None:
    root = Path(__file__).resolve().parents[1]
    text = (root / "docs" / "evaluation.md").read_text().split("## Studies")[1]
    plan = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    anomaly = next(one for one in read_cells(root / "results" / "base.jsonl") if one["cell"] == "held_out")
    for figure, _ in plan["tables"]["sizes"]["columns"].values():
        assert figure in anomaly["figures"] or figure == "cpu_minutes"
