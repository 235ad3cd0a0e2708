"""Write the comparison of methods: results/comparison.json from evaluated runs, and its table in
docs/results.md from that file.

    python scripts/write_comparison.py latent_mle/mnist_published=runs/mle-mnist baselines/mnist_vae=...

Each run must have been trained and evaluated (`lebm evaluate`). Cells of recipes that are not named stay as
they are in the file; what is in neither reads "not run". Without arguments only the table is written again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from results_page import ROOT, fill, keep

from lebm.evaluation.record import read_evaluation, without_curves
from lebm.run.folder import spent_minutes

SUITES = ("image", "likelihood")
FILE = ROOT / "results" / "comparison.json"
RECIPES = {
    "latent_mle/mnist_published": "LatentMLE",
    "multistage_nce/mnist_published": "MultiStageNCE",
    "joint_hierarchical/mnist": "JointHierarchicalPrior",
    "joint_hierarchical/mnist_vae": "the same without energy",
    "joint_hierarchical/mnist_two_stage": "an energy for that one",
    "dual_mcmc/mnist": "DualMCMCTeaching",
    "baselines/mnist_gaussian": "alternating back-propagation",
    "baselines/mnist_vae": "VAE",
}
FIGURES = {
    "reconstruction_mse": ("reconstruction MSE", "{:.4f}"),
    "frechet_distance/digits64": ("Frechet distance, digits64", "{:.1f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "density": ("density", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "log_likelihood/ais": ("log p(x), nats", "{:.0f}"),
    "bracket_gap/simulated_images": ("its gap", "{:.1f}"),
}


def cell(recipe: str, run: Path) -> dict:
    fit = json.loads((run / "summary.json").read_text())
    if fit["status"] != "finished":
        raise SystemExit(f"{run}: {fit['status']}, not finished")
    evaluation = without_curves(read_evaluation(run / "evaluation.json"))
    evaluation["suites"] = {
        name: evaluation["suites"][name] for name in SUITES if name in evaluation["suites"]
    }
    kept = (
        "command",
        "seed",
        "steps",
        "epochs",
        "cpu_time_seconds",
        "wall_time_seconds",
        "hardware",
        "versions",
        "started",
    )
    return {
        "recipe": recipe,
        "fit": {
            **{name: fit.get(name) for name in kept},
            "earlier_attempts": fit.get("earlier_attempts", []),
        },
        "evaluation": evaluation,
    }


def shown(figure: dict | None, form: str) -> str:
    if figure is None:
        return "not run"
    if figure["value"] is None:
        return "not finite"
    ends = (
        ""
        if figure["low"] is None
        else f" ({_number(form, figure['low'])} to {_number(form, figure['high'])})"
    )
    median = figure["details"].get("median")
    return (
        _number(form, figure["value"])
        + ends
        + (f", median {_number(form, median)}" if median is not None else "")
    )


def _number(form: str, value: float) -> str:
    """Without the sign of a zero."""
    text = form.format(value)
    return text.removeprefix("-") if not float(text) else text


def table(cells: dict[str, dict]) -> str:
    lines = [
        "| recipe | method | steps | CPU min | " + " | ".join(name for name, _ in FIGURES.values()) + " |"
    ]
    lines.append("|" + "---|" * (4 + len(FIGURES)))
    counts = set()
    for recipe, method in RECIPES.items():
        found = cells.get(recipe)
        suites = found["evaluation"]["suites"] if found else {}
        figures = {figure["name"]: figure for suite in suites.values() for figure in suite["figures"]}
        row = [f"`{recipe}`", method, "not run", "not run"]
        if found:
            row[2:] = [f"{found['fit']['steps']:,}", f"{spent_minutes(found['fit']):.1f}"]
            counts |= {
                suite["protocol"]["n_samples"]
                for name, suite in suites.items()
                if name == "image" and "n_samples" in suite["protocol"]
            }
        lines.append(
            "| "
            + " | ".join([*row, *(shown(figures.get(name), form) for name, (_, form) in FIGURES.items())])
            + " |"
        )
    lines += [
        "",
        (
            f"95 % intervals in brackets; {', '.join(f'{count:,}' for count in sorted(counts)) or 'no'}"
            " samples. Commands:"
        ),
        "",
    ]
    for found in cells.values():
        suites = found["evaluation"]["suites"]
        commands = dict.fromkeys(
            [found["fit"]["command"], *(suite["origin"]["command"] for suite in suites.values())]
        )
        lines += [f"    {command}" for command in commands]
    return "\n".join(lines)


def main() -> None:
    cells = {entry["recipe"]: entry for entry in (json.loads(FILE.read_text()) if FILE.is_file() else [])}
    for word in sys.argv[1:]:
        recipe, _, run = word.partition("=")
        if recipe not in RECIPES or not run:
            raise SystemExit(f"{word}: expected RECIPE=RUN with one of {', '.join(RECIPES)}")
        cells[recipe] = cell(recipe, Path(run))
        keep("comparison", [cells[name] for name in RECIPES if name in cells])  # what is done is kept
    fill("comparison", table(cells))


if __name__ == "__main__":
    main()
