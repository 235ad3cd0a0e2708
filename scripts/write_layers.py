"""Write what the layers of trained models hold: results/NAME.json and the tables of that name in
docs/results.md.

    python scripts/write_layers.py joint_mnist runs/joint-mnist-* runs/joint-mnist_vae-*

Each run must have been trained and tested with LayerClassification; where `lebm evaluate --suite ood` has
been run too, its ranking figures follow. Runs are grouped by recipe; where there are several seeds, means
with 95 % Student intervals over seeds."""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

from results_page import fill, keep, where
from scipy.stats import t

from lebm.run.folder import spent_minutes

ACCURACY = "test/latent_accuracy/"


def row_of(run: Path) -> dict:
    """What is reported of one run, read from its summaries."""
    fit, test = (json.loads((run / name).read_text()) for name in ("summary.json", "test.json"))
    if fit["status"] != "finished" or test["status"] != "finished":
        raise SystemExit(f"{run}: not finished")
    evaluation = run / "evaluation.json"
    figures = json.loads(evaluation.read_text())["suites"]["ood"]["figures"] if evaluation.is_file() else []
    return {
        "recipe": Path(fit["recipe"]).stem,
        "run": run.name,
        "seed": fit["seed"],
        "steps": fit["steps"],
        "command": fit["command"],
        "cpu_minutes": round(spent_minutes(fit), 1),
        "wall_minutes": round(spent_minutes(fit, "wall"), 1),
        "hardware": fit["hardware"],
        "versions": fit["versions"],
        "date": fit["started"][:10],
        "metrics": test["metrics"],
        "ood": [figure for figure in figures if figure["name"].startswith(("auroc/", "auprc/"))],
    }


def interval(rows: list[dict], name: str) -> str:
    """Per cent, over seeds where there are several, otherwise over images."""
    values = [100 * row["metrics"][name] for row in rows]
    if len(values) == 1:
        low, high = (100 * rows[0]["metrics"][f"{name}_{end}"] for end in ("low", "high"))
        return f"{values[0]:.1f} ({low:.1f} to {high:.1f})"
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def accuracies(groups: dict[str, list[dict]]) -> list[str]:
    layers = [
        name
        for name in next(iter(groups.values()))[0]["metrics"]
        if re.fullmatch(rf"{ACCURACY}(layer_\d+|all)", name)
    ]
    lines = [
        "| recipe | seeds | steps | CPU min per run | "
        + " | ".join(name.removeprefix(ACCURACY).replace("_", " ") for name in layers)
    ]
    lines[0] += " | reconstruction MSE |"
    lines.append("|" + "---|" * (5 + len(layers)))
    for recipe, rows in groups.items():
        error = statistics.mean(row["metrics"]["test/reconstruction_mse"] for row in rows)
        cpu = statistics.mean(row["cpu_minutes"] for row in rows)
        cells = [
            recipe,
            str(len(rows)),
            f"{rows[0]['steps']:,}",
            f"{cpu:.1f}",
            *(interval(rows, name) for name in layers),
            f"{error:.4f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def rankings(groups: dict[str, list[dict]]) -> list[str]:
    """AUROC / AUPRC of every score, one row an out-set and recipe."""
    scores = ("log_joint", *(f"llr_above_{k}" for k in range(1, 9)))
    lines = []
    for recipe, rows in groups.items():
        table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            for figure in row["ood"]:
                table[figure["split"]][figure["name"]].append(figure["value"])
        for split, found in table.items():
            shown = [score for score in scores if f"auroc/{score}" in found]
            if not lines:
                lines += [
                    "| out-set | recipe | seeds | " + " | ".join(shown) + " |",
                    "|" + "---|" * (3 + len(shown)),
                ]
            cells = [
                " / ".join(f"{statistics.mean(found[f'{area}/{score}']):.3f}" for area in ("auroc", "auprc"))
                for score in shown
            ]
            count = len(found[f"auroc/{shown[0]}"])
            lines.append(f"| {split} | {recipe} | {count} | " + " | ".join(cells) + " |")
    return lines[:2] + sorted(lines[2:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in sorted(map(row_of, options.runs), key=lambda row: (row["recipe"], row["seed"])):
        groups[row["recipe"]].append(row)
    keep(options.name, groups)
    first = next(iter(groups.values()))[0]
    machine = where(first["hardware"], first["versions"], first["date"])
    commands = "\n".join(f"    {row['command']}" for rows in groups.values() for row in rows)
    parts = ["\n".join(accuracies(groups)), f"{machine}; commands:\n\n{commands}"]
    if any(row["ood"] for rows in groups.values() for row in rows):
        parts.append("\n".join(rankings(groups)))
    fill(options.name, "\n\n".join(parts))


if __name__ == "__main__":
    main()
