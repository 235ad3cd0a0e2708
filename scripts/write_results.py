"""Write result tables from run folders: results/NAME.json and the table of that name in docs/results.md.

    python scripts/write_results.py mnist_anomaly runs/anomaly-*

Each run must have been trained and tested. A figure is taken from the run's test.json, everything else about
it from both summaries; nothing is typed in. The table replaces what stands between `<!-- NAME -->` and `<!--
end -->`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from results_page import fill, keep, where

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
    fit, test = (json.loads((run / name).read_text()) for name in ("summary.json", "test.json"))
    if fit["status"] != "finished" or test["status"] != "finished":
        raise SystemExit(f"{run}: not finished")
    config = yaml.safe_load((run / "config.yaml").read_text())
    return {
        "run": run.name,
        "method": config["model"]["class_path"].rsplit(".", 1)[-1],
        "held_out_label": fit["data"].get("held_out_label"),
        "command": fit["command"],
        "seed": fit["seed"],
        "steps": fit["steps"],
        "epochs": fit["epochs"],
        "cpu_minutes": round(spent, 1) if (spent := spent_minutes(fit)) is not None else None,
        "wall_minutes": round(spent_minutes(fit, "wall"), 1),
        "hardware": fit["hardware"],
        "versions": fit["versions"],
        "date": fit["started"][:10],
        "chains": test["chains"],
        "data": {key: test["data"].get(key) for key in ("sizes", "anomaly_split", "seed")},
        "metrics": {name: test["metrics"][name] for name in COLUMNS if name in test["metrics"]},
    }


def table(rows: list[dict]) -> str:
    present = [name for name in COLUMNS if any(name in row["metrics"] for row in rows)]
    held_out = any(row["held_out_label"] is not None for row in rows)
    head = [
        "method",
        *(["held out"] if held_out else []),
        "steps",
        "CPU min (wall)",
        *(COLUMNS[name] for name in present),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["method"], *([str(row["held_out_label"])] if held_out else [])]
        cells += [f"{row['steps']:,}", f"{row['cpu_minutes'] or '?'} ({row['wall_minutes']})"]
        cells += [f"{row['metrics'][name]:.3f}" if name in row["metrics"] else "not run" for name in present]
        lines.append("| " + " | ".join(cells) + " |")
    first = rows[0]
    machine = where(first["hardware"], first["versions"], first["date"])
    commands = "\n".join(f"    {row['command']}" for row in rows)
    return "\n".join([*lines, "", f"{machine}; seed {first['seed']}; commands:", "", commands])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    rows = sorted(
        (row_of(run) for run in options.runs), key=lambda row: (row["method"], str(row["held_out_label"]))
    )
    keep(options.name, rows)
    fill(options.name, table(rows), "anomaly.md" if "anomaly" in options.name else "results.md")


if __name__ == "__main__":
    main()
