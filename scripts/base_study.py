"""The tables of docs/results/base.md, from results/base.jsonl: `python scripts/base_study.py`."""

from __future__ import annotations

from statistics import mean
from typing import Any

from base_priors import DISTANCE
from results_page import publish, stored_cells

from lebm.study import fitting, grid, machine, spread

DIGITS = [1, 4, 5, 7, 9]
SCORES = {
    "code": "-log p(z) at the mean, base and energy",
    "base": "-log p(z) at the mean, base alone",
    "combined": "`combined`: reconstruction and prior",
    "reconstruction": "reconstruction alone",
}


def _of(name: str) -> list[dict[str, Any]]:
    return fitting(stored_cells("base"), {"cell": name})


def _mean(cells: list[dict[str, Any]], figure: str, form: str) -> str:
    known = [cell["figures"][figure][0] for cell in cells if figure in cell["figures"]]
    return spread(known, form, mean) if known else ""


RECIPES: dict[str, dict[str, Any]] = {
    "`multistage_nce/mnist_conv`": {"cell": "samples"},
    "the same in 20 epochs, of which 3 for the ratio": {"cell": "short"},
    "`multistage_nce/mnist_two_stage`": {"cell": "recipes", "recipe": "multistage_nce/mnist_two_stage"},
    "`multistage_nce/mnist`": {"cell": "recipes", "recipe": "multistage_nce/mnist"},
    "`latent_mle/mnist`": {"cell": "recipes", "recipe": "latent_mle/mnist"},
    "`quickstart`": {"cell": "quickstart"},
}


def samples() -> str:
    """Distances of the prior and of its base alone."""
    rows = []
    for recipe, wanted in RECIPES.items():
        cells = fitting(stored_cells("base"), wanted)
        minutes = spread([cell["cpu_minutes"] for cell in cells], "{:.1f}", mean)
        columns = [f"{DISTANCE}/base", DISTANCE]
        values = [_mean(cells, column, "{:.2f}") for column in columns]
        values += [_mean(cells, column, "{:.3f}") for column in ("precision", "recall")]
        rows.append([recipe, len(cells), minutes, *values, _mean(cells, "reconstruction_mse", "{:.4f}")])
    head = ["recipe", "seeds", "CPU min", "distance, base alone", "distance, base and energy"]
    return (
        grid([*head, "precision", "recall", "MSE"], rows)
        + "\n\n"
        + _origin("samples", "short", "recipes", "quickstart")
    )


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
    return f"{machine(*cells)}. `lebm study run studies/base.yaml FOLDER --only {','.join(names)}`."


BLOCKS = {"base_samples": samples, "base_held_out": held_out, "base_given": given}
BLOCKS["base_dimensions"] = dimensions


if __name__ == "__main__":
    publish(BLOCKS)
