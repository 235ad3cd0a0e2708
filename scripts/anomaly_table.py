"""Held-out digits of MNIST: train, score and write results/anomaly/*.json and docs/anomaly.md.

    python scripts/anomaly_table.py run FOLDER       # every cell, eight CPU minutes each
    python scripts/anomaly_table.py run FOLDER --only VAE --digits 2,3 --seed 1
    python scripts/anomaly_table.py write            # the tables only

A cell is one model without one digit, by `lebm sweep`. Done cells are skipped, interrupted ones go on. The
settings were chosen with the digits 2 and 3 held out; the table reports 1, 4, 5, 7 and 9 once, from the last
checkpoint. All scores of a cell come from one pass over the test images."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from equal_time import DIGITS, PAPERS, below, figure
from results_page import ROOT, fill

from lebm.config import recipes
from lebm.run.folder import spent_minutes

RESULTS = ROOT / "results" / "anomaly"
HELD_OUT = ["--data.init_args.anomaly_split", "lebm", "--data.init_args.validation_size", "0"]
# As long as LatentMLE in CPU time; the learning rate falls to the same share as in the recipe.
LONGER = ["--trainer.max_epochs", "30", "--model.init_args.optimizer.init_args.lr_decay", "0.883"]
# recipe, what differs from it
PLANS: dict[str, tuple[str, list[str]]] = {
    "LatentMLE": ("latent_mle/mnist_anomaly", []),
    "VAE": ("baselines/mnist_vae", ["--latent_dim", "16", *LONGER]),
    "MultiStageNCE": ("multistage_nce/mnist_anomaly", []),
}
SCORES = {
    "reconstruction": "reconstruction alone",
    "prior": "-log p(z) alone",
    "log_joint": "-log p(x, z)",
    "combined": "combined",
}


def results(seed: int) -> Path:
    """The folder of the cells of one seed."""
    return RESULTS / f"seed-{seed}" if seed else RESULTS


def run(folder: str, only: str | None, digits: str, seed: int) -> None:
    for method in [only] if only else PLANS:
        recipe, changes = PLANS[method]
        sweep = [sys.executable, "-m", "lebm", "sweep", "-c", recipe, "--results", str(results(seed))]
        sweep += ["--runs", f"runs/anomaly/{method}-{seed}", "--seed_everything", str(seed)]
        sweep += ["--data.init_args.path", folder, *HELD_OUT, *changes]
        sweep += ["--trainer.enable_progress_bar", "false", "--over", "held_out_label", digits]
        sweep += ["--suite", "anomaly"]
        if subprocess.run(sweep, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode:
            print(f"{method}: not complete", file=sys.stderr)


def cells(method: str) -> dict[str, dict]:
    """The cells that are done, by held-out digit."""
    name = PLANS[method][0].replace("/", "-")
    found = [json.loads(file.read_text()) for file in sorted(RESULTS.glob(f"{name}-held_out_label-*.json"))]
    return {str(cell["value"]): cell for cell in found}


def table(digits: list[str]) -> str:
    """AUPRC by method and score; the highest value per digit is bold."""
    rows: dict[str, list[float | None]] = {}
    done, cost = [], {}
    for method in PLANS:
        found = cells(method)
        done += list(found.values())
        times = [spent_minutes(cell["fit"]) for cell in found.values()]
        cost[method] = f"{min(times):.1f} to {max(times):.1f}" if times else "not run"
        for score, title in SCORES.items():
            entries = [figure(found[digit], f"auprc/{score}") if digit in found else None for digit in digits]
            rows[f"{method} | {title}"] = [entry["value"] if entry else None for entry in entries]
    best = [
        max((row[i] for row in rows.values() if row[i] is not None), default=None) for i in range(len(digits))
    ]
    lines = [f"| method | score | CPU min per model | {' | '.join(digits)} |"]
    lines.append("|" + "---|" * (3 + len(digits)))
    for name, row in rows.items():
        if all(value is None for value in row):
            continue
        shown = [
            "not run" if value is None else f"**{value:.3f}**" if value == top else f"{value:.3f}"
            for value, top in zip(row, best, strict=True)
        ]
        lines.append(f"| {name} | {cost[name.split(' | ')[0]]} | {' | '.join(shown)} |")
    if digits == DIGITS.split(","):
        lines += [
            f"| paper: {paper} | | not stated | {' | '.join(values)} |" for paper, values in PAPERS.items()
        ]
    return "\n".join([*lines, *below(done)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--only", choices=PLANS)
    runner.add_argument("--digits", default=DIGITS)
    runner.add_argument("--seed", type=int, default=0)
    verbs.add_parser("write")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen.folder, chosen.only, chosen.digits, chosen.seed)
    for file in RESULTS.rglob("*.json"):  # recipes are named from the root of the project
        file.write_text(file.read_text().replace(f'"{recipes.folder()}/', '"recipes/'))
    fill("anomaly", table(DIGITS.split(",")), "anomaly.md")


if __name__ == "__main__":
    main()
