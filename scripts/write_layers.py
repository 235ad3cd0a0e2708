"""Write what the layers of trained models hold: results/NAME.json and the tables of that name.

    python scripts/write_layers.py joint_mnist runs/joint-mnist-* runs/joint-mnist_vae-*

Each run must have been trained and tested with LayerClassification; where `lebm evaluate --suite ood` has
been run too, its ranking figures follow. Runs are grouped by recipe; where there are several seeds, means
with 95 % Student intervals over seeds."""

from __future__ import annotations

import json
import re
import statistics
from collections import defaultdict
from functools import partial
from pathlib import Path

from results_page import RESULTS, finished, folded, grid, keep, machine, name_and_runs, publish, stored
from scipy.special import stdtrit

from lebm.run.folder import spent_minutes

ACCURACY = "test/latent_accuracy/"
FOLDER = RESULTS / "layers"
SETTINGS = {
    "recipe": "as the recipe: sigma .5, 10 epochs",
    "long": "30 epochs",
    "sharp": "sigma .3",
    "warm": "KL warm-up of 2,000 steps",
    "vlae": "the paper's networks, 12 epochs",
}
PRIORS = {
    "normal": "N(0, I)",
    "bounded": "energy, slope at most 1, 60 fresh steps",
    "free": "energy, free slope, a pool of chains",
}
SCORES = ("log_joint", *(f"llr_above_{k}" for k in range(1, 9)))


def row_of(run: Path) -> dict:
    """What is reported of one run, read from its summaries."""
    fit, test = finished(run, "summary.json", "test.json")
    evaluation = run / "evaluation.json"
    figures = json.loads(evaluation.read_text())["suites"]["ood"]["figures"] if evaluation.is_file() else []
    return {
        "recipe": Path(fit["recipe"]).stem,
        "run": run.name,
        **{name: fit[name] for name in ("seed", "steps", "command", "hardware", "versions")},
        "cpu_minutes": round(spent_minutes(fit), 1),
        "wall_minutes": round(spent_minutes(fit, "wall"), 1),
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
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def accuracies(name: str) -> str:
    """Accuracy of each layer, by recipe, with the commands."""
    groups = stored(name)
    runs = [row for rows in groups.values() for row in rows]
    layers = [name for name in runs[0]["metrics"] if re.fullmatch(rf"{ACCURACY}(layer_\d+|all)", name)]
    titles = [layer.removeprefix(ACCURACY).replace("_", " ") for layer in layers]
    lines = []
    for recipe, rows in groups.items():
        error = statistics.mean(row["metrics"]["test/reconstruction_mse"] for row in rows)
        cpu = statistics.mean(row["cpu_minutes"] for row in rows)
        found = (interval(rows, layer) for layer in layers)
        lines.append([recipe, len(rows), f"{rows[0]['steps']:,}", f"{cpu:.1f}", *found, f"{error:.4f}"])
    head = ["recipe", "seeds", "steps", "CPU min per run", *titles, "reconstruction MSE"]
    return "\n\n".join([grid(head, lines), machine(*runs), folded(row["command"] for row in runs)])


def rankings(name: str) -> str:
    """AUROC / AUPRC of every score, one row an out-set and recipe."""
    lines, scores = [], []
    for recipe, rows in stored(name).items():
        table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            for figure in row["ood"]:
                table[figure["split"]][figure["name"]].append(figure["value"])
        for split, found in table.items():
            scores = [score for score in SCORES if f"auroc/{score}" in found]
            means = [
                " / ".join(f"{statistics.mean(found[f'{area}/{score}']):.3f}" for area in ("auroc", "auprc"))
                for score in scores
            ]
            lines.append([split, recipe, len(found[f"auroc/{scores[0]}"]), *means])
    return grid(["out-set", "recipe", "seeds", *scores], sorted(lines))


def chains(name: str) -> str:
    """Long prior chains and attacks on the latents, of the runs that were tested for them."""
    lines = []
    for row in (row for rows in stored(name).values() for row in rows):
        own = {key.removeprefix("test/"): value for key, value in row["metrics"].items()}
        if "long_chain/rms" in own:
            rms = f"{own['long_chain/rms']:.3f} and {own['long_chain/rms_end']:.3f}"
            density = f"{own['long_chain/log_density']:.2f} and {own['long_chain/log_density_end']:.2f}"
            attacks = [name for name in own if re.fullmatch(r"attack/layer_\d+", name)]
            falls = [f"{own[f'{attack}_before']:,.0f} to {own[attack]:,.0f}" for attack in attacks]
            lines.append([row["recipe"], row["seed"], rms, density, *falls])
    layers = [f"attacked KL, layer {k + 1}" for k in range(len(lines[0]) - 4)]
    return grid(["recipe", "seed", "root mean square", "log-density", *layers], lines)


def tables(name: str) -> dict:
    """The blocks of a name."""
    parts = {name: accuracies, f"{name}_rankings": rankings, f"{name}_chains": chains}
    return {block: partial(build, name) for block, build in parts.items()}


def priors() -> str:
    """Every setting and prior that scripts/layer_priors.py has run."""
    lines, done = [], []
    for setting, title in SETTINGS.items():
        for prior, label in PRIORS.items():
            files = sorted(FOLDER.glob(f"{setting}-{prior}-?.json"))
            rows = [json.loads(file.read_text()) for file in files]
            if rows:
                done += rows
                error = statistics.mean(row["metrics"]["test/reconstruction_mse"] for row in rows)
                minutes = statistics.mean(row["minutes"] for row in rows)
                layers = (interval(rows, f"{ACCURACY}layer_{k}") for k in (1, 2, 3))
                by_layer = (
                    " / ".join(f"{statistics.mean(row[name][k] for row in rows):.1f}" for k in range(3))
                    for name in ("kl", "spread")
                )
                lines.append([title, label, len(rows), f"{minutes:.1f}", *layers, *by_layer, f"{error:.4f}"])
    head = ["setting", "prior", "seeds", "CPU min per run", "layer 1", "layer 2", "layer 3"]
    table = grid(
        [*head, "KL to N(0, I) by layer, nats", "root mean square of codes", "reconstruction MSE"], lines
    )
    return "\n\n".join([table, machine(*done), folded(row["command"] for row in done)])


BLOCKS = {**tables("joint_mnist"), "layer_priors": priors}


def main() -> None:
    options = name_and_runs(__doc__)
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in sorted(map(row_of, options.runs), key=lambda row: (row["recipe"], row["seed"])):
        groups[row["recipe"]].append(row)
    keep(options.name, groups)
    publish(tables(options.name))


if __name__ == "__main__":
    main()
