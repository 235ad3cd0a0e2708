"""The tables of kinds of inference and prior chains, from results/inference/*.json.

scripts/inference_table.py trains the cells and calls this."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from results_page import RESULTS, folded, grid, machine, spread, stored

FOLDER, SVHN, LENGTH = RESULTS / "inference", RESULTS / "svhn_size", RESULTS / "length"
TITLES = {
    "short_run": "20 steps from N(0, I), as published",
    "short_run_mala": "20 exact steps of .05 from N(0, I) (MALA)",
    "remembered": "5 steps from where the row's chain ended",
    "taught": "5 steps from an encoder that learns the ends",
    "taught_mala": "5 exact steps of .05 from an encoder that learns the ends (MALA)",
    "variational": "a draw of a variational encoder",
}
ROWS = {
    f"{kind}{pool}": (f"inference/{kind.removesuffix('_mala')}", "prior/persistent" if pool else None)
    for kind in TITLES
    for pool in ("", "+pool", "+pool3", "+mala1", "+mala3", "+mala5", "+narrow1", "+narrow3", "+together3")
}
POOLS = {
    "pool": ("Langevin", 10, 0.4),
    "pool3": ("Langevin", 3, 0.4),
    "mala1": ("MALA", 1, 0.25),
    "mala3": ("MALA", 3, 0.25),
    "mala5": ("MALA", 5, 0.25),
    "narrow1": ("MALA", 1, 0.25),
    "narrow3": ("MALA", 3, 0.25),
    "together3": ("MALA", 3, 0.25),
}
"""Kernel of the pool's chains, transitions per training step, and step size.

With "mala1", "mala5" and the narrow ones fresh chains go through the stages; the networks of the narrow ones
are half as wide. "together3" is "narrow3", and moves five slots of the pool at once."""
METHODS = {"latent_mle": "one energy", "multistage_nce": "four stages"}
COLUMNS = {
    "mse": "{:.3f}",
    "distance_60": "{:.0f}",
    "distance_1000": "{:.0f}",
    "distance_pool": "{:.0f}",
    "precision": "{:.2f}",
    "recall": "{:.2f}",
    "spread": "{:.1f}",
}
PRIORS = {
    "normal": "N(0, I)",
    "1": "one Gaussian, fitted",
    "10": "mixture of 10 Gaussians",
    "100": "mixture of 100 Gaussians",
    "ncp": "one classifier (NCP)",
    "stage 1": "stage 1",
    "last": "fresh chains under the last product",
    "through": "fresh chains through the stages",
    "pool": "the pool, and 10 steps",
    "long pool": "the pool, and 300 steps",
}
MEASURES = {"distance": "{:.1f}", "precision": "{:.3f}", "recall": "{:.3f}"}
NATS = "log p(z), nats per test image"
CURVES = (
    *("short_run", "short_run+pool", "short_run_mala+pool"),
    *("taught+pool", "taught_mala+pool", "variational+pool"),
)
PRODUCT = "model.init_args.prior.init_args.energy.init_args.active.init_args"
CHAINS = "model.init_args.prior_sampler.init_args"
EPOCHS, DECAY = "trainer.max_epochs", "model.init_args.optimizer.init_args.lr_decay"
STEPS = "model.init_args.stages.init_args.steps"
EXACT: dict[str, Any] = {EPOCHS: 20, DECAY: 0.891, STEPS: 2750, f"{CHAINS}.together": 1}
LANGEVIN: dict[str, Any] = {
    **EXACT,
    f"{CHAINS}.kernel": {"class_path": "Langevin", "init_args": {"steps": 10, "step_size": 0.4}},
    f"{CHAINS}.fresh_steps": 300,
    "model.init_args.through_stages": False,
    f"{PRODUCT}.hidden": [200, 200],
}
MALA: dict[str, Any] = {
    f"{CHAINS}.kernel": {"class_path": "MALA", "init_args": {"steps": 10, "step_size": 0.25}},
    f"{CHAINS}.fresh_steps": 800,
}
LENGTH_RECIPES: dict[str, dict[str, Any]] = {
    "latent_mle/mnist": {},
    "latent_mle/mnist+mala": MALA,
    "multistage_nce/mnist+exact": EXACT,
    "multistage_nce/mnist+langevin": LANGEVIN,
    "joint_hierarchical/mnist": {},
    "baselines/mnist_vae": {},
    "dual_mcmc/mnist": {EPOCHS: 3, DECAY: 0.5, "model.init_args.posterior_sampler.init_args.step_size": 0.05},
    "latent_mle/mnist_anomaly": {"data.init_args.held_out_label": 3},
}
"""Recipes that scripts/length_table.py trains for longer, and what it sets.

Of "dual_mcmc/mnist" one length is a third of the recipe's, with its former chain.
"+mala": ten exact steps in the pool. "+exact": half the recipe's epochs and steps per stage are one length,
and each slot of the pool moves alone.
"+langevin": besides, ten steps of Langevin in the pool, fresh chains under the last product, and networks of
the stages that are twice as wide."""
LENGTHS = {"distance": "{:.1f}", "mse": "{:.4f}", "auprc": "{:.3f}"}
LOOKS = {"distance": "{:.0f}", "spread": "{:.1f}", "prior_spread": "{:.1f}", "energy_gap": "{:.1f}"}


def found(pattern: str, method: str = "latent_mle") -> dict[str, dict[str, Any]]:
    """The cells of a method whose names fit, by name without the method."""
    files = sorted(FOLDER.glob(f"{method}-{pattern}.json"))
    return {file.stem.removeprefix(f"{method}-"): json.loads(file.read_text()) for file in files}


def prior_chain(pool: str) -> str:
    """The prior chain of a row in words; ``pool`` is what its name has after the plus."""
    kernel, transitions, _ = POOLS.get(pool, ("", 0, 0))
    exact = f" ({kernel})" if kernel == "MALA" else ""
    exact += ", networks half as wide" if pool.startswith(("narrow", "together")) else ""
    exact += ", five slots at once" if pool.startswith("together") else ""
    many = "step" if transitions == 1 else "steps"
    return f"{transitions} {many} of a pool{exact}" if pool else "60 fresh steps"


def passed(curve: Sequence[dict[str, float]], key: str, goal: float) -> float | None:
    """Minutes of the first look at which a value is no larger than the goal."""
    return next((look["minutes"] for look in curve if look[key] <= goal), None)


def table() -> str:
    """One line per row and time: the median over seeds, with the lowest and the highest."""
    groups: dict[tuple[float, str, str], list[dict[str, Any]]] = {}
    for method in METHODS:
        for name, cell in found("*", method).items():
            groups.setdefault((cell["minutes"], method, name.rsplit("-", 2)[0]), []).append(cell)
    rows = []
    for minutes, method, row in sorted(groups, key=lambda key: (*key[:2], list(ROWS).index(key[2]))):
        own = groups[minutes, method, row]
        inferred, _, pool = row.partition("+")
        values = [
            spread([c["figures"].get(name) for c in own], form, median) for name, form in COLUMNS.items()
        ]
        steps = f"{round(median(cell['steps'] for cell in own)):,}"
        chains = [TITLES[inferred], prior_chain(pool)]
        rows.append([f"{minutes:g}", METHODS[method], *chains, len(own), steps, *values])
    head = [
        "CPU min",
        "prior",
        "latents of data in training",
        "prior chain in training",
        "seeds",
        "steps",
        "MSE",
    ]
    head += ["distance, 60 steps", "1,000 steps", "of the pool", "precision", "recall", "spread"]
    commands = [cell["command"] for own in groups.values() for cell in own]
    return "\n\n".join([grid(head, rows), folded(commands)])


def sooner() -> str:
    """When the curves of the other rows pass what the published algorithm has at the end of its time."""
    rows = []
    for theirs in found("short_run-*").values():
        goal = theirs["figures"]["distance_60"]
        for row in ("taught+pool", "variational+pool"):
            for other in found(f"{row}-{theirs['minutes']:g}-{theirs['seed']}").values():
                first = passed(other["curve"], "distance", goal)
                ratio = f"{theirs['minutes'] / first:.0f}" if first else ""
                told = [f"{theirs['minutes']:g}", theirs["seed"], f"{goal:.0f}"]
                rows.append([*told, row, first or "never", ratio])
    head = ["CPU min of the published row", "seed", "its distance", "row", "reached after", "times sooner"]
    return grid(head, rows)


def curves() -> str:
    """What the looks in between saw in the cells of ten minutes."""
    rows = [
        [
            row,
            cell["seed"],
            *(" / ".join(form.format(look[name]) for look in cell["curve"]) for name, form in LOOKS.items()),
        ]
        for row in CURVES
        for cell in found(f"{row}-10-*").values()
    ]
    head = ["row", "seed", "distance, 60 steps", "spread of data latents", "of the prior", "energy gap"]
    return grid(head, rows)


def prior_rows(entry: dict[str, Any], *kinds: str) -> Iterator[list[str]]:
    """The lines of one run in a table of priors: title, the measures of the draws and of ``kinds``, nats."""
    blank = [""] * (len(MEASURES) * (1 + len(kinds)))
    yield ["training images", f"{entry['floor']:.1f}", *blank]
    yield ["their reconstructions", f"{entry['reconstructions']:.1f}", *blank]
    for row in entry["rows"]:
        title = PRIORS.get(row["prior"], row["prior"].replace("stage", "stages 1 to"))
        measured = (row, *(row[kind] for kind in kinds))
        values = [form.format(of[name]) for of in measured for name, form in MEASURES.items()]
        yield [title, *values, f"{row['log_density']:.2f} ± {row['half']:.2f}" if "half" in row else ""]


def prior_entries(revised: bool) -> list[dict[str, Any]]:
    """The runs that scripts/priors_table.py measured, with or without ``--revise``."""
    return [entry for entry in stored("priors") if ("revised" in entry["rows"][0]) == revised]


def priors() -> str:
    """Other priors for the encodings of one run; scripts/priors_table.py measures them."""
    entries, rows = prior_entries(revised=False), []
    for entry in entries:
        first, *others = prior_rows(entry)
        rows += [[f"`{entry['name']}`", *first], *(["", *row] for row in others)]
    head = ["recipe", "draws of", "Frechet distance", "precision", "recall", NATS]
    counts = [[f"`{entry['name']}`", *entry["digits"]] for entry in entries]
    classes = grid(["2,000 draws of fresh chains that show", *range(10)], counts)
    return "\n\n".join([grid(head, rows), classes, folded([entry["command"] for entry in entries])])


def dual_priors() -> str:
    """The same for a model with an energy on images, which revises the draws."""
    (entry,) = prior_entries(revised=True)
    head = ["draws of", *MEASURES, *(f"{name}, revised" for name in MEASURES), NATS]
    return "\n\n".join([grid(head, prior_rows(entry, "revised")), folded([entry["command"]])])


def method_steps() -> str:
    """Time per training step of each stage over that of one energy, by benchmarks/method_steps.py."""
    measured, rows = stored("method_steps"), []
    for kernel, quartiles in measured["ratio"].items():
        rows.append([kernel, *(f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in quartiles)])
    head = ["steps of the pool", *(f"stage {number}" for number in range(1, len(quartiles))), "mean"]
    own = f"One step of `latent_mle/mnist` takes {measured['milliseconds']:.0f} ms"
    below = f"{own}; {measured['machine']}; {measured['rounds']} rounds, quartiles in brackets."
    return "\n\n".join([grid(head, rows), below, folded([measured["command"]])])


def svhn_size() -> str:
    """The looks of the cells of scripts/svhn_size_table.py, and when each row passes the released one."""
    cells = {file.stem: json.loads(file.read_text()) for file in sorted(SVHN.glob("*.json"))}
    goal, rows = cells["short_run"]["curve"][-1], []
    for row, own in cells.items():
        curve, (inferred, _, pool) = own["curve"], row.partition("+")
        looks = [" / ".join(f"{look['mse']:.3f}" for look in curve)]
        looks.append(" / ".join(f"{look['distance']:.1f}" for look in curve))
        for key in ("mse", "distance"):
            first = passed(curve, key, goal[key])
            looks.append("" if curve[-1] == goal else "never" if first is None else f"{first:g} min")
        rows.append([TITLES[inferred], prior_chain(pool), f"{curve[-1]['step']:,}", *looks])
    head = ["latents of data in training", "prior chain in training", "steps", "MSE", "distance"]
    head += ["error of the released row after", "its distance after"]
    below = f"The distance between two parts of the data is {cells['short_run']['floor']:.1f}."
    return "\n\n".join([grid(head, rows), below, folded([own["command"] for own in cells.values()])])


def lengths() -> str:
    """The looks of the cells of scripts/length_table.py, one after each half of the recipe's length."""
    files = sorted(LENGTH.glob("*.json"))
    done = [json.loads(file.read_text()) for file in files]
    done.sort(key=lambda cell: (list(LENGTH_RECIPES).index(cell["recipe"]), cell["times"], cell["seed"]))
    rows = []
    for cell in done:
        curve, tripled = cell["curve"], f"times {cell['times']}" if cell["times"] > 1 else "as it is"
        told = [f"`{cell['recipe']}`", tripled, f"{curve[-1]['step']:,}", f"{curve[-1]['minutes']:.1f}"]
        looks = (
            " / ".join(form.format(look[name]) for look in curve if name in look)
            for name, form in LENGTHS.items()
        )
        rows.append([*told, *looks])
    head = ["recipe", "length", "steps", "CPU min", "distance", "MSE", "AUPRC"]
    below = f"The distance between two parts of the data is {done[0]['floor']:.1f}. {machine(*done)}."
    return "\n\n".join([grid(head, rows), below, folded([cell["command"] for cell in done])])


BLOCKS = {
    "lengths": lengths,
    "svhn_size": svhn_size,
    "method_steps": method_steps,
    "priors": priors,
    "dual_priors": dual_priors,
    "inference": table,
    "sooner": sooner,
    "curves": curves,
}
