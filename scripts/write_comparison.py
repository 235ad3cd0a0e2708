"""The comparison of methods and of seeds: results/comparison.json from evaluated runs, and tables.

    python scripts/write_comparison.py latent_mle/mnist_published=runs/mle-mnist baselines/mnist_vae=...

Each run must have been trained and evaluated (`lebm evaluate`). Cells of recipes that are not named stay as
they are in the file; what is in neither reads "not run". Without arguments only the tables are written again.

Seed 0 of a recipe with a row per seed is results/RECIPE.json. Other seeds are cells of
`lebm sweep -c RECIPE --over seed 1,2 --suite image --evaluate "--n-samples 5000" --results results/seeds`."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from results_page import (
    cells,
    figures,
    finished,
    grid,
    keep,
    machine,
    publish,
    reruns,
    shown,
    spread,
    stored,
    training,
)

from lebm.run.folder import spent_minutes

SUITES = ("image", "likelihood")
RECIPES = {
    "latent_mle/mnist_published": "LatentMLE",
    "latent_mle/mnist": "LatentMLE, encoder and pool",
    "multistage_nce/mnist_published": "MultiStageNCE",
    "joint_hierarchical/mnist": "JointHierarchicalPrior",
    "joint_hierarchical/mnist_vae": "the same without energy",
    "joint_hierarchical/mnist_two_stage": "an energy for that one",
    "dual_mcmc/mnist_published": "DualMCMCTeaching",
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
SEVERAL = (
    "latent_mle/mnist",
    "multistage_nce/mnist",
    "multistage_nce/mnist_conv_normal_base",
    "multistage_nce/mnist_two_stage",
)
"""Recipes with a row per seed."""
LABELS = {
    "baselines/mnist_vae_conv": "`baselines/mnist_vae`, networks and sigma of `mnist_conv`",
    "baselines/mnist_vae_conv_wide": "the same with sigma .5",
    "baselines/mnist_vae_conv_tuned": "the same with sigma 1.5, the best of five",
}
"""Further rows: runs of recipes with other settings, by the names of their files."""
DRAWS = {
    "reconstruction_mse": FIGURES["reconstruction_mse"],
    "frechet_distance/digits64": ("Frechet distance, fresh chains", "{:.1f}"),
    "frechet_distance/digits64/pool": ("Frechet distance, pool of chains", "{:.1f}"),
    **{name: FIGURES[name] for name in ("precision", "recall")},
}
FIT = ("command", "seed", "steps", "epochs", "cpu_time_seconds", "wall_time_seconds", "hardware", "versions")


def cell(recipe: str, run: Path) -> dict:
    from lebm.evaluation.record import read_evaluation, without_curves

    (fit,) = finished(run, "summary.json")
    evaluation = without_curves(read_evaluation(run / "evaluation.json"))
    suites = evaluation["suites"]
    evaluation["suites"] = {name: suites[name] for name in SUITES if name in suites}
    return {"recipe": recipe, "fit": training(fit, (*FIT, "started")), "evaluation": evaluation}


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
            protocols = (suite["protocol"] for suite in found["evaluation"]["suites"].values())
            counts |= {protocol["n_samples"] for protocol in protocols if "n_samples" in protocol}
        values = (shown(own.get(name), form) for name, (_, form) in FIGURES.items())
        rows.append([f"`{recipe}`", method, *cost, *values])
    head = ["recipe", "method", "steps", "CPU min", *(title for title, _ in FIGURES.values())]
    samples = ", ".join(f"{count:,}" for count in sorted(counts)) or "no"
    told = f"95 % intervals in brackets; {samples} samples."
    runs = ((found["fit"], found["evaluation"]) for found in known.values())
    return "\n\n".join([grid(head, rows), told, reruns(runs)])


def trainings(recipe: str) -> dict[int, tuple[dict, dict]]:
    """Training and evaluation of every seed that is there."""
    first = stored(recipe.replace("/", "_"))
    found = {0: (first["fit"], first)}
    others = cells("seeds", recipe, "seed").values()
    return dict(sorted((found | {c["fit"]["seed"]: (c["fit"], c["evaluation"]) for c in others}).items()))


def seeds() -> str:
    """A row per seed with 95 % intervals, and the mean of several seeds with the lowest and the highest."""
    rows, runs = [], []
    for recipe in (*SEVERAL, *LABELS):
        found, label = trainings(recipe), LABELS.get(recipe, f"`{recipe}`")
        runs += list(found.values())
        values = [figures(evaluation) for _, evaluation in found.values()]
        times = [spent_minutes(fit) for fit, _ in found.values()]
        for seed, own, time in zip(found, values, times, strict=True):
            row = (shown(own.get(name), form) for name, (_, form) in DRAWS.items())
            rows.append([label, seed, f"{time:.1f}", *row])
        if len(found) > 1:
            known = {name: [own[name]["value"] for own in values if name in own] for name in DRAWS}
            means = (spread(known[name], form, mean) for name, (_, form) in DRAWS.items())
            rows.append([label, "mean (lowest to highest)", spread(times, "{:.1f}", mean), *means])
    head = ["recipe", "seed", "CPU min", *(title for title, _ in DRAWS.values())]
    machines = machine(*(evaluation["suites"]["image"]["origin"] for _, evaluation in runs))
    return "\n\n".join([grid(head, rows), machines, reruns(runs)])


def stages() -> str:
    """What each stage of the prior had left to learn, and its normalising constant."""
    published = next(row for row in stored("mnist") if row["method"] == "MultiStageNCE")["chains"]
    found = {"multistage_nce/mnist_published": published}
    for recipe in SEVERAL[1:]:
        found[recipe] = stored(recipe.replace("/", "_"))["suites"]["image"]["origin"]["chains"]
    rows = []
    for recipe, chains in found.items():
        for stage, constant in zip(chains["stages"], chains["log_z"], strict=True):
            log_z = f"{constant['log_z']:.2f} ({constant['low']:.2f} to {constant['high']:.2f})"
            told = [f"{stage['steps']:,}", f"{stage['accuracy']:.2f}", log_z, f"{constant['ess']:.0f}"]
            rows.append([f"`{recipe}`", stage["stage"], *told])
    head = ["recipe", "stage", "steps", "accuracy of its classifier", "log Z"]
    return grid([*head, "effective chains of 512"], rows)


def stage_rules() -> str:
    """`multistage_nce/mnist` with `AdaptiveStages`, and with fixed stages of about as many steps in all."""
    rows, done = [], []
    for rule, folder in (("`AdaptiveStages`", "adaptive"), ("`FixedStages(550)`", "adaptive/fixed")):
        for seed, own in sorted(cells(folder, "multistage_nce/mnist", "seed").items()):
            values = figures(own["evaluation"])
            lengths = own["evaluation"]["suites"]["image"]["origin"]["chains"]["stages"]
            told = [rule, seed, " / ".join(f"{stage['steps']:,}" for stage in lengths)]
            rows.append([*told, *(shown(values.get(name), form) for name, (_, form) in DRAWS.items())])
            done.append(own)
    head = ["rule", "seed", "steps of the stages", *(title for title, _ in DRAWS.values())]
    machines = machine(*(own["evaluation"]["suites"]["image"]["origin"] for own in done))
    runs = ((own["fit"], own["evaluation"]) for own in done)
    return "\n\n".join([grid(head, rows), machines, reruns(runs)])


BLOCKS = {"comparison": table, "seeds": seeds, "stages": stages, "stage_rules": stage_rules}


def main() -> None:
    known, names = measured(), dict.fromkeys((*RECIPES, *SEVERAL, *LABELS))
    for word in sys.argv[1:]:
        recipe, _, run = word.partition("=")
        if recipe not in names or not run:
            raise SystemExit(f"{word}: expected RECIPE=RUN with one of {', '.join(names)}")
        measured_now = cell(recipe, Path(run))
        if recipe in (*SEVERAL, *LABELS):
            keep(recipe.replace("/", "_"), {**measured_now["evaluation"], "fit": measured_now["fit"]})
        if recipe in RECIPES:
            known[recipe] = measured_now
        keep("comparison", [known[name] for name in RECIPES if name in known])  # what is done is kept
    publish(BLOCKS)


if __name__ == "__main__":
    main()
