"""Write result tables from run folders: results/NAME.json and the table of that name.

    python scripts/write_results.py mnist_anomaly runs/anomaly-*

Each run must have been trained and tested. A figure is taken from the run's test.json, everything else about
it from both summaries; nothing is typed in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import yaml
from results_page import finished, folded, grid, keep, machine, name_and_runs, publish, stored

from lebm.run.folder import spent_minutes

COLUMNS = {
    "test/prior_mmd_start": "MMD² of N(0, I)",
    "test/prior_mmd": "MMD² of the prior",
    "test/auprc": "AUPRC (average precision)",
    "test/auprc_trapezoid": "AUPRC (trapezoid)",
    "test/auroc": "AUROC",
    "test/anomaly_base_rate": "by guessing",
    "test/auprc_lowest": "lowest AUPRC",
    "test/reconstruction_mse": "reconstruction MSE",
}


def row_of(run: Path) -> dict:
    fit, test = finished(run, "summary.json", "test.json")
    config = yaml.safe_load((run / "config.yaml").read_text())
    return {
        "run": run.name,
        "method": config["model"]["class_path"].rsplit(".", 1)[-1],
        "held_out_label": fit["data"].get("held_out_label"),
        **{name: fit[name] for name in ("command", "seed", "steps", "epochs")},
        "cpu_minutes": round(spent, 1) if (spent := spent_minutes(fit)) is not None else None,
        "wall_minutes": round(spent_minutes(fit, "wall"), 1),
        **{name: fit[name] for name in ("hardware", "versions")},
        "date": fit["started"][:10],
        "chains": test["chains"],
        "data": {key: test["data"].get(key) for key in ("sizes", "anomaly_split", "seed")},
        "metrics": {name: test["metrics"][name] for name in COLUMNS if name in test["metrics"]},
    }


def table(*names: str) -> str:
    rows = [row for name in names for row in stored(name)]
    present = [name for name in COLUMNS if any(name in row["metrics"] for row in rows)]
    held_out = ["held out"] if any(row["held_out_label"] is not None for row in rows) else []
    lines = []
    for row in rows:
        cost = [f"{row['steps']:,}", f"{row['cpu_minutes'] or '?'} ({row['wall_minutes']})"]
        values = (f"{row['metrics'][name]:.3f}" if name in row["metrics"] else "not run" for name in present)
        lines.append([row["method"], *([row["held_out_label"]] if held_out else []), *cost, *values])
    head = ["method", *held_out, "steps", "CPU min (wall)", *(COLUMNS[name] for name in present)]
    below = f"{'; '.join(dict.fromkeys(map(machine, rows)))}; seed {rows[0]['seed']}"
    return "\n\n".join([grid(head, lines), below, folded(row["command"] for row in rows)])


BLOCKS = {
    "mnist": partial(table, "mnist"),
    "mnist_anomaly": partial(table, "mnist_anomaly"),
    "quickstart": partial(table, "quickstart", "quickstart_published"),
}


def main() -> None:
    options = name_and_runs(__doc__)
    rows = sorted(map(row_of, options.runs), key=lambda row: (row["method"], str(row["held_out_label"])))
    keep(options.name, rows)
    publish({options.name: BLOCKS.get(options.name, partial(table, options.name))})


if __name__ == "__main__":
    main()
