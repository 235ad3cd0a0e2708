r"""The tables of `latent_mle/mnist` and `multistage_nce/mnist`: a row per seed, and the stages of the prior.

    python scripts/write_seeds.py

Seed 0 of a recipe is results/RECIPE.json. Other seeds are cells in results/seeds/, where there are any:

    lebm sweep -c multistage_nce/mnist --over seed 1,2 --results results/seeds \
        --suite image --evaluate "--n-samples 5000"
"""

from __future__ import annotations

from statistics import mean

from results_page import (
    RESULTS,
    cells,
    commands,
    figures,
    folded,
    grid,
    machine,
    publish,
    shown,
    spread,
    stored,
)

from lebm.run.folder import spent_minutes

RECIPES = ("latent_mle/mnist", "multistage_nce/mnist")
FIGURES = {
    "reconstruction_mse": ("reconstruction MSE", "{:.4f}"),
    "frechet_distance/digits64": ("Frechet distance, fresh chains", "{:.1f}"),
    "frechet_distance/digits64/pool": ("Frechet distance, pool of chains", "{:.1f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
}


def measured(recipe: str) -> dict[int, tuple[dict, dict]]:
    """Training and evaluation of every seed that is there."""
    first = stored(recipe.replace("/", "_"))
    found = {0: (first["fit"], first)}
    others = cells(RESULTS / "seeds", recipe, "seed").values()
    return dict(sorted((found | {c["fit"]["seed"]: (c["fit"], c["evaluation"]) for c in others}).items()))


def table() -> str:
    """A row per seed with 95 % intervals, and the mean of several seeds with the lowest and the highest."""
    rows, runs = [], []
    for recipe in RECIPES:
        found = measured(recipe)
        runs += list(found.values())
        values = [figures(evaluation) for _, evaluation in found.values()]
        times = [spent_minutes(fit) for fit, _ in found.values()]
        for seed, own, time in zip(found, values, times, strict=True):
            row = (shown(own.get(name), form) for name, (_, form) in FIGURES.items())
            rows.append([f"`{recipe}`", seed, f"{time:.1f}", *row])
        if len(found) > 1:
            ends = ([own[name]["value"] for own in values if name in own] for name in FIGURES)
            forms = (form for _, form in FIGURES.values())
            means = (spread(end, form, mean) for end, form in zip(ends, forms, strict=True))
            rows.append([f"`{recipe}`", "mean (lowest to highest)", spread(times, "{:.1f}", mean), *means])
    head = ["recipe", "seed", "CPU min", *(title for title, _ in FIGURES.values())]
    machines = "; ".join(
        dict.fromkeys(machine(suite["origin"]) for _, e in runs for suite in e["suites"].values())
    )
    return "\n\n".join([grid(head, rows), machines, folded(line for run in runs for line in commands(*run))])


def stages() -> str:
    """What each stage of the prior had left to learn, and its normalising constant."""
    published = next(row for row in stored("mnist") if row["method"] == "MultiStageNCE")["chains"]
    ours = stored("multistage_nce_mnist")["suites"]["image"]["origin"]["chains"]
    rows = []
    for recipe, chains in (("multistage_nce/mnist_published", published), ("multistage_nce/mnist", ours)):
        for stage, constant in zip(chains["stages"], chains["log_z"], strict=True):
            log_z = f"{constant['log_z']:.2f} ({constant['low']:.2f} to {constant['high']:.2f})"
            told = [f"{stage['steps']:,}", f"{stage['accuracy']:.2f}", log_z, f"{constant['ess']:.0f}"]
            rows.append([f"`{recipe}`", stage["stage"], *told])
    head = [
        "recipe",
        "stage",
        "steps",
        "held-out accuracy of its classifier",
        "log Z",
        "effective chains of 512",
    ]
    return grid(head, rows)


BLOCKS = {"seeds": table, "stages": stages}

if __name__ == "__main__":
    publish(BLOCKS)
