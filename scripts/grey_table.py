"""The recipes of MNIST on other images, CIFAR-10 in grey at 28 pixels: results/grey/*.json and their table.

    python scripts/grey_table.py run FOLDER    # FOLDER of CIFAR-10; six CPU minutes per model
    python scripts/grey_table.py run FOLDER --only VAE --seeds 1
    python scripts/grey_table.py write

Every cell is one of `lebm sweep`: done cells are skipped. All models have 32 latent coordinates; the epochs
make their times alike, and the rates fall to the shares that they have in the recipes."""

from __future__ import annotations

from statistics import mean

from equal_time import below, minutes
from results_page import cells, figures, grid, publish, run_or_write, spread, sweep
from write_comparison import FIGURES as COMMON

GREY = [
    "--data.init_args.image_column",
    "img",
    "--latent_dim",
    "32",
    "--trainer.enable_progress_bar",
    "false",
]
DECAY = "--model.init_args.optimizer.init_args.lr_decay"
BOUNDED = ["--model.init_args.prior.init_args.energy.init_args.spectral_norm", "true"]
SLOWER = ["--model.init_args.optimizer.init_args.lr", "{generator: 1.0e-3, encoder: 1.0e-3, energy: 1.0e-4}"]
STAGES = ["--model.init_args.stages.init_args.steps", "2700"]
# folder of the cells, recipe, prior in words, what differs from the recipe
PLANS: dict[str, tuple[str, str, str, list[str]]] = {
    "VAE": ("grey", "baselines/mnist_vae", "N(0, I)", ["--trainer.max_epochs", "44", DECAY, "0.919"]),
    "LatentMLE": ("grey", "latent_mle/mnist", "one energy, slope at most 1", BOUNDED),
    "LatentMLE-slower": ("grey/slower", "latent_mle/mnist", "one energy, a third of its rate", SLOWER),
    "MultiStageNCE": (
        "grey",
        "multistage_nce/mnist",
        "four stages",
        ["--trainer.max_epochs", "24", DECAY, "0.908", *STAGES],
    ),
}
FIGURES = {
    "reconstruction_mse": COMMON["reconstruction_mse"],
    "frechet_distance/pixels8": ("Frechet distance, 8 by 8 pixels", "{:.2f}"),
    **{name: COMMON[name] for name in ("precision", "recall", "density", "coverage")},
}


def words(method: str, folder: str, seeds: str) -> list[str]:
    """What the cells of a method give to `lebm sweep`."""
    _, recipe, _, changes = PLANS[method]
    chosen = ["-c", recipe, "--runs", f"runs/grey/{method}", "--data.init_args.path", folder, *GREY, *changes]
    suites = ["--suite", "image", "--evaluate", "--n-samples 5000 --features pixels"]
    return [*chosen, "--over", "seed_everything", seeds, *suites]


def table() -> str:
    """The mean of the seeds of each method, with the lowest and the highest."""
    rows, done = [], []
    for method, (folder, recipe, prior, _) in PLANS.items():
        own = list(cells(folder, recipe, "seed_everything").values())
        values = [figures(cell["evaluation"]) for cell in own]
        shown = (
            spread([value[name]["value"] for value in values], form, mean)
            for name, (_, form) in FIGURES.items()
        )
        steps = f"{own[0]['fit']['steps']:,}"
        rows.append([method.partition("-")[0], prior, len(own), steps, minutes(own), *shown])
        done += own
    head = ["method", "prior", "seeds", "steps", "CPU min", *(title for title, _ in FIGURES.values())]
    return "\n\n".join([grid(head, rows), *below(done, "python scripts/grey_table.py run FOLDER")])


BLOCKS = {"grey": table}


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of CIFAR-10 in the layout of the Hub, or its name there")
    runner.add_argument("--only", choices=PLANS)
    runner.add_argument("--seeds", default="0")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        methods = [chosen.only] if chosen.only else PLANS
        for name in methods:
            sweep(PLANS[name][0], {name: words(name, chosen.folder, chosen.seeds)})
    publish(BLOCKS)


if __name__ == "__main__":
    main()
