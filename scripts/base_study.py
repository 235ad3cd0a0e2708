"""The base of a prior: train the cells of studies/base.yaml, and write the tables of docs/results/base.md.

    python scripts/base_study.py run FOLDER [--data FOLDER] [--only samples]
    python scripts/base_study.py write

A cell is one training and its evaluation. Its line in results/base.jsonl has the command, the versions, the
machine, the CPU minutes and all figures. The folder of data has `mnist` and `kjv`. Draws of the base alone
come from the same model, with its energy asleep."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

import base_priors
import yaml
from results_page import RESULTS, ROOT, figures, folded, grid, machine, publish, run_or_write, spread

from lebm.run.folder import hardware, versions

CELLS = RESULTS / "base.jsonl"
DIGITS = [1, 4, 5, 7, 9]
DISTANCE = "frechet_distance/digits64"
SCORES = {
    "code": "-log p(z) at the mean, base and energy",
    "base": "-log p(z) at the mean, base alone",
    "combined": "`combined`: reconstruction and prior",
    "reconstruction": "reconstruction alone",
}


def run(folder: Path, data: str | None, only: str | None) -> None:
    """Train and measure the cells that have no line yet."""
    done = {(cell["cell"], json.dumps(cell["settings"])) for cell in stored_cells()}
    for name, plan in yaml.safe_load((ROOT / "studies" / "base.yaml").read_text())["cells"].items():
        for values in itertools.product(*plan["axes"].values()) if only in (None, name) else ():
            settings = dict(zip(plan["axes"], values, strict=True))
            if (name, json.dumps(settings)) in done:
                continue
            place = folder / "-".join([name, *map(str, values)])
            result = {"cell": name, "settings": settings} | cell(plan, settings, place, data)
            with CELLS.open("a") as file:
                file.write(json.dumps(result) + "\n")


def cell(plan: dict[str, Any], settings: dict[str, Any], place: Path, data: str | None) -> dict[str, Any]:
    """The line of a cell, after its training and its measurements."""
    mnist = None if data is None else str(Path(data) / "mnist")
    if "recipe" not in plan:
        return {
            "command": f"base_priors.measure({plan['model']!r}, {settings['seed_everything']})",
            "versions": versions(),
            "hardware": hardware(),
            "started": datetime.now().isoformat(timespec="seconds"),
            "figures": base_priors.measure(plan["model"], settings["seed_everything"], mnist),
        }
    words = ["fit", "-c", *plan["recipe"].split()]
    for key, value in (plan.get("settings", {}) | settings).items():
        words += [f"--{key}", str(value) if isinstance(value, str | int) else json.dumps(value)]
    command = shlex.join(["lebm", *words])
    if data is not None and plan["recipe"] != "quickstart":
        words += ["--data.init_args.path", str(Path(data) / plan.get("data", "mnist"))]
    if not (place / "summary.json").exists():
        lebm(*words, "--run_dir", str(place))
    fit = json.loads((place / "summary.json").read_text())
    if plan["measure"] == "priors":
        kept = base_priors.measure(place, settings["seed_everything"], mnist)
    else:
        lebm("evaluate", str(place), *(w for suite in plan["measure"] for w in ("--suite", suite)))
        found = figures(json.loads((place / "evaluation.json").read_text()))
        kept = {key: [found[key][end] for end in ("value", "low", "high")] for key in found}
        if DISTANCE in kept:
            kept[f"{DISTANCE}/base"] = [base_alone(place), None, None]
    return {
        "command": command,
        "cpu_minutes": fit["cpu_time_seconds"] / 60,
        "versions": fit["versions"],
        "hardware": fit["hardware"],
        "started": fit["started"],
        "figures": kept,
    }


def lebm(*words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lebm", *words], env=environment, check=True)


def base_alone(place: Path, n: int = 5000) -> float:
    """The Frechet distance of draws of the base from the training images."""
    import torch

    import lebm
    from lebm.evaluation.data import RunImages, batches
    from lebm.evaluation.reopen import reopen
    from lebm.metrics import DigitFeatures, FrechetDistance

    torch.set_num_threads(1)
    model = lebm.load(place)
    model.fit_base.steps = 0
    features, distance = DigitFeatures(), FrechetDistance(64)
    with torch.no_grad():
        images = RunImages.of(reopen(place))
        for batch in batches(images.train, 500, model.device):
            distance.update(features(batch["x"]), real=True)
        for part in model.sample(n, generator=torch.Generator().manual_seed(0)).split(500):
            distance.update(features(part), real=False)
    return float(distance.compute())


def stored_cells() -> list[dict[str, Any]]:
    return [json.loads(text) for text in CELLS.read_text().splitlines()] if CELLS.exists() else []


def _of(name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored_cells() if cell["cell"] == name]


def _mean(cells: list[dict[str, Any]], figure: str, form: str) -> str:
    known = [cell["figures"][figure][0] for cell in cells if figure in cell["figures"]]
    return spread(known, form, mean) if known else ""


RECIPES = {
    "samples": "`multistage_nce/mnist_conv`",
    "short": "the same in 20 epochs, of which 3 for the ratio",
    "overlay": "`latent_mle/mnist -c prior/mixture`",
    "quickstart": "`quickstart`",
}


def samples() -> str:
    """Distances of the prior and of its base alone."""
    rows = []
    for name, recipe in RECIPES.items():
        cells = _of(name)
        minutes = spread([cell["cpu_minutes"] for cell in cells], "{:.1f}", mean)
        columns = [f"{DISTANCE}/base", DISTANCE]
        values = [_mean(cells, column, "{:.2f}") for column in columns]
        values += [_mean(cells, column, "{:.3f}") for column in ("precision", "recall")]
        rows.append([recipe, len(cells), minutes, *values, _mean(cells, "reconstruction_mse", "{:.4f}")])
    head = ["recipe", "seeds", "CPU min", "distance, base alone", "distance, base and energy"]
    return grid([*head, "precision", "recall", "MSE"], rows) + "\n\n" + _origin(*RECIPES)


def held_out() -> str:
    """AUPRC of the scores, one column per digit."""
    rows = []
    for score, words in SCORES.items():
        row: list[Any] = [words]
        for digit in DIGITS:
            cells = [c for c in _of("held_out") if c["settings"]["data.init_args.held_out_label"] == digit]
            row.append(_mean(cells, f"auprc/{score}", "{:.3f}"))
        rows.append(row)
    minutes = spread([cell["cpu_minutes"] for cell in _of("held_out")], "{:.1f}", mean)
    return grid(["score", *map(str, DIGITS)], rows) + f"\n\nCPU minutes: {minutes}. " + _origin("held_out")


PRIORS = {
    "N(0, I)": ("normal", "normal", []),
    "mixture of 10, scikit-learn (the default of pythae)": ("sklearn 10", "sklearn 10", ["sklearn 10"]),
    "mixture of 50, scikit-learn": ("sklearn 50", "sklearn 50", ["sklearn 50"]),
    "neural spline flow, zuko": ("flow", "flow", ["flow"]),
    "mixture of 50": ("base", "base", ["base"]),
    "mixture of 50 and an energy, independence Metropolis": ("total", "metropolis", ["base", "energy"]),
    "mixture of 50 and an energy, 60 steps of MALA": ("total", "mala", ["base", "energy"]),
    "encodings of training data": ("", "reconstructions", []),
}


def _measured(name: str) -> list[dict[str, Any]]:
    """Cells with the sums of what a prior of two parts has: its log-density and its seconds."""
    cells = _of(name)
    for cell in cells:
        found = cell["figures"]
        found["nats/total"] = [found["nats/base"][0] + found["nats/gain"][0]]
        for title, (_, _, parts) in PRIORS.items():
            if parts:
                found[f"fit/{title}"] = [sum(found[f"seconds/{part}"][0] for part in parts)]
    return cells


def given() -> str:
    """Priors for the encodings of one trained model."""
    cells = _measured("given")
    rows = [
        [
            title,
            _mean(cells, f"fit/{title}", "{:.0f}"),
            _mean(cells, f"nats/{nats}", "{:.2f}"),
            _mean(cells, f"distance/{draws}", "{:.1f}"),
        ]
        for title, (nats, draws, _) in PRIORS.items()
    ]
    head = ["prior", "CPU s", "nats of held-out encodings", "distance of 20,000 draws"]
    return grid(head, rows) + "\n\n" + _origin("given")


def dimensions() -> str:
    """What the energy adds to the mixture in latents of several sizes."""
    every, rows = _measured("dimensions"), []
    for size in sorted({cell["settings"]["latent_dim"] for cell in every}):
        cells = [cell for cell in every if cell["settings"]["latent_dim"] == size]
        columns = [
            *("nats/sklearn 10", "nats/flow", "nats/base", "nats/gain", "share"),
            *("distance/sklearn 10", "distance/flow", "distance/base", "distance/metropolis"),
            *("distance/mala", "distance/reconstructions"),
        ]
        forms = ["{:.2f}" if name.startswith(("nats", "share")) else "{:.1f}" for name in columns]
        values = [_mean(cells, column, form) for column, form in zip(columns, forms, strict=True)]
        rows.append([size, len(cells), *values])
    head = ["latents", "seeds", "nats: mixture of 10", "flow", "mixture of 50", "gain of the energy"]
    head += [
        "effective share",
        "distance: mixture of 10",
        "flow",
        "mixture of 50",
        "with the energy, Metropolis",
    ]
    head += ["MALA", "encodings"]
    return grid(head, rows) + "\n\n" + _origin("dimensions")


def _origin(*names: str) -> str:
    cells = [cell for name in names for cell in _of(name)]
    return machine(*cells) + "\n\n" + folded(cell["command"] for cell in cells)


BLOCKS = {"base_samples": samples, "base_held_out": held_out, "base_given": given}
BLOCKS["base_dimensions"] = dimensions


if __name__ == "__main__":
    parser, runs = run_or_write(__doc__)
    runs.add_argument("folder", type=Path)
    runs.add_argument("--data")
    runs.add_argument("--only")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen.folder, chosen.data, chosen.only)
    publish(BLOCKS)
