"""Write the comparison of methods: results/comparison.json from evaluated runs, and its table from that file.

    python scripts/write_comparison.py latent_mle/mnist_published=runs/mle-mnist baselines/mnist_vae=...

Each run must have been trained and evaluated (`lebm evaluate`). Cells of recipes that are not named stay as
they are in the file; what is in neither reads "not run". Without arguments only the table is written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from results_page import RESULTS, commands, figures, finished, folded, grid, keep, publish, shown, stored

from lebm.run.folder import spent_minutes

SUITES = ("image", "likelihood")
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
FIT = [
    "command",
    "seed",
    "steps",
    "epochs",
    "cpu_time_seconds",
    "wall_time_seconds",
    "hardware",
    "versions",
    "started",
]


def cell(recipe: str, run: Path) -> dict:
    from lebm.evaluation.record import read_evaluation, without_curves

    (fit,) = finished(run, "summary.json")
    evaluation = without_curves(read_evaluation(run / "evaluation.json"))
    suites = evaluation["suites"]
    evaluation["suites"] = {name: suites[name] for name in SUITES if name in suites}
    kept = {**{name: fit.get(name) for name in FIT}, "earlier_attempts": fit.get("earlier_attempts", [])}
    return {"recipe": recipe, "fit": kept, "evaluation": evaluation}


def measured() -> dict[str, dict]:
    """The cells in the file, by recipe."""
    return {cell["recipe"]: cell for cell in stored("comparison")}


def table() -> str:
    known, rows, counts = measured(), [], set()
    for recipe, method in RECIPES.items():
        found, own, cost = known.get(recipe), {}, ["not run"] * 2
        if found:
            fit, own = found["fit"], figures(found["evaluation"])
            cost = [f"{fit['steps']:,}", f"{spent_minutes(fit):.1f}"]
            counts |= {s["protocol"].get("n_samples") for s in found["evaluation"]["suites"].values()} - {
                None
            }
        values = (shown(own.get(name), form) for name, (_, form) in FIGURES.items())
        rows.append([f"`{recipe}`", method, *cost, *values])
    head = ["recipe", "method", "steps", "CPU min", *(title for title, _ in FIGURES.values())]
    samples = ", ".join(f"{count:,}" for count in sorted(counts)) or "no"
    told = f"95 % intervals in brackets; {samples} samples."
    lines = [line for found in known.values() for line in commands(found["fit"], found["evaluation"])]
    return "\n\n".join([grid(head, rows), told, folded(lines)])


BLOCKS = {"comparison": table}


def main() -> None:
    known = measured() if (RESULTS / "comparison.json").is_file() else {}
    for word in sys.argv[1:]:
        recipe, _, run = word.partition("=")
        if recipe not in RECIPES or not run:
            raise SystemExit(f"{word}: expected RECIPE=RUN with one of {', '.join(RECIPES)}")
        known[recipe] = cell(recipe, Path(run))
        keep("comparison", [known[name] for name in RECIPES if name in known])  # what is done is kept
    publish(BLOCKS)


if __name__ == "__main__":
    main()
