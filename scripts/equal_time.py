"""Methods and baselines with one generator and the same time: results/equal_time/*.json and their tables.

    python scripts/equal_time.py run mnist FOLDER      # images and likelihood: ten CPU minutes per model
    python scripts/equal_time.py run anomaly FOLDER    # five held-out digits: three CPU minutes per model
    python scripts/equal_time.py run anomaly FOLDER --only VAE
    python scripts/equal_time.py write                 # the tables only

Every cell is one of `lebm sweep`: done cells are skipped, interrupted ones go on. A recipe ends after a
number of steps, not of minutes, so that it can be repeated anywhere; the numbers below were chosen once, from
the cost of a step on one thread, and the time each really took is in the table. Learning rates fall to about
the same share of their start in every method."""

from __future__ import annotations

from collections.abc import Iterable

from results_page import arguments, cells, figures, folded, grid, machine, publish, shown, sweep
from write_comparison import FIGURES

from lebm.run.folder import spent_minutes

DIGITS = "1,4,5,7,9"
FALL = 0.107  # of the learning rates over a run: what latent_mle/mnist_published has in its 12 epochs
GENERATOR = "--model.init_args.likelihood.init_args.generator"
# Eight latent coordinates and 478,384 weights in the generator; the ladder's three layers have 4 + 2 + 2 and
# nearly as many weights.
LADDER = ["--latent_dims", "[4,2,2]", f"{GENERATOR}.init_args.blocks"]
LADDER += ["[[linear 784],[linear 328],[linear 328,linear 328]]"]
CONNECTED = f"""--latent_dim 8 {GENERATOR} lebm.models.MLPGenerator {GENERATOR}.init_args.latent_dim 8
    {GENERATOR}.init_args.out_shape [1,28,28] {GENERATOR}.init_args.hidden [400,400]""".split()
ALIKE = {"JointHierarchicalPrior": LADDER, "DualMCMCTeaching": CONNECTED}
# recipe, steps, batch size
PLANS = {
    "mnist": {
        "LatentMLE": ("latent_mle/mnist_published", 3300, 100),
        "MultiStageNCE": ("multistage_nce/mnist_published", 2800, 100),
        "JointHierarchicalPrior": ("joint_hierarchical/mnist", 11000, 100),
        "DualMCMCTeaching": ("dual_mcmc/mnist_published", 2000, 50),
        "alternating back-propagation": ("baselines/mnist_gaussian", 4000, 100),
        "VAE": ("baselines/mnist_vae", 24200, 100),
    },
    "anomaly": {
        "LatentMLE": ("latent_mle/mnist_anomaly_published", 870, 100),
        "MultiStageNCE": ("multistage_nce/mnist_anomaly", 712, 100),
        "JointHierarchicalPrior": ("joint_hierarchical/mnist", 2800, 100),
        "DualMCMCTeaching": ("dual_mcmc/mnist_published", 480, 50),
        "alternating back-propagation": ("baselines/mnist_gaussian", 970, 100),
        "VAE": ("baselines/mnist_vae", 5800, 100),
    },
}
IMAGES = {"mnist": 55_000, "anomaly": 50_500}
ANOMALY_FIGURES = {"auprc/anomaly_score": "AUPRC", "auroc/anomaly_score": "AUROC"}
# Means as printed; splits, networks and numbers of steps are not those of this table. [PF]: read from the
# page of a project or paper.
PAPERS = {
    "NeurIPS 2020 [PF]": (".336", ".630", ".619", ".463", ".413"),
    "CVPR 2023 [PF]": (".470", ".941", ".964", ".815", ".796"),
    "ICCV 2023 [P]": (".722", ".949", ".980", ".941", ".935"),
}
DETAILS = {"base_rate": "by guessing", "auprc_lowest": "lowest possible"}


def words(plan: str, method: str, folder: str, digits: str = DIGITS) -> list[str]:
    """What a cell gives to `lebm sweep`."""
    recipe, steps, batch = PLANS[plan][method]
    decay = FALL ** (IMAGES[plan] / (steps * batch))
    chosen = ["-c", recipe, "--runs", f"runs/equal-{plan}/{method.replace(' ', '_')}"]
    chosen += ["--data.init_args.path", folder]
    chosen += ["--trainer.max_steps", str(steps), "--trainer.max_epochs", "-1"]
    chosen += [*ALIKE.get(method, ()), "--model.init_args.optimizer.init_args.lr_decay", f"{decay:.4f}"]
    chosen += ["--trainer.enable_progress_bar", "false"]
    if method == "MultiStageNCE":
        chosen += ["--model.init_args.stages.init_args.steps", str(steps // 4)]
    if plan == "mnist":
        suites = ["--suite", "image", "--suite", "likelihood", "--evaluate", "--n-samples 5000"]
        return [*chosen, "--over", "seed", "0", *suites]
    chosen += ["--data.init_args.anomaly_split", "lebm", "--data.init_args.validation_size", "0"]
    return [*chosen, "--over", "held_out_label", digits, "--suite", "anomaly", "--evaluate", "--limit 5000"]


def measured(plan: str) -> dict[str, dict[str, dict]]:
    """What has been done of each method, by seed or digit."""
    argument = "seed" if plan == "mnist" else "held_out_label"
    return {method: cells("equal_time", recipe, argument) for method, (recipe, *_) in PLANS[plan].items()}


def below(done: list[dict], command: str) -> list[str]:
    """The lines under a table; the commands of single runs are in the cells' files."""
    return [machine(*(cell["fit"] for cell in done)), folded([command])]


def minutes(done: Iterable[dict]) -> str:
    """The range of CPU minutes of some cells."""
    times = [spent_minutes(cell["fit"]) for cell in done]
    ends = dict.fromkeys(f"{time:.1f}" for time in (min(times), max(times))) if times else ["not run"]
    return " to ".join(ends)


def image_table() -> str:
    done, rows = [], []
    for method, own in measured("mnist").items():
        done += own.values()
        values = figures(own["0"]["evaluation"]) if own else {}
        cost = _cost(own["0"]["fit"]) if own else ["not run"] * 3
        rows.append([method, *cost, *(shown(values.get(name), form) for name, (_, form) in FIGURES.items())])
    head = ["method", "steps", "CPU min", "CPU ms per step", *(title for title, _ in FIGURES.values())]
    return "\n\n".join([grid(head, rows), *below(done, "python scripts/equal_time.py run mnist FOLDER")])


def _cost(fit: dict) -> list[str]:
    """Steps, minutes, and what a step costs with everything around it: loading, validation, pictures."""
    spent = spent_minutes(fit)
    return [f"{fit['steps']:,}", f"{spent:.1f}", f"{60_000 * spent / fit['steps']:.0f}"]


def anomaly_table() -> str:
    digits, found, parts = DIGITS.split(","), measured("anomaly"), []
    for name, title in ANOMALY_FIGURES.items():
        rows, known = [], {}
        for method, own in found.items():
            values = {digit: figures(cell["evaluation"])[name] for digit, cell in own.items()}
            known |= {digit: value["details"] for digit, value in values.items()}
            rows.append(
                [method, minutes(own.values()), *(shown(values.get(digit), "{:.3f}") for digit in digits)]
            )
        if name.startswith("auprc"):
            for detail, label in DETAILS.items() if known else ():
                rows.append([label, "", *(f"{known.get(digit, {}).get(detail, 0):.3f}" for digit in digits)])
            rows += [[f"paper: {paper}", "not stated", *printed] for paper, printed in PAPERS.items()]
        parts.append(grid([title, "CPU min per model", *digits], rows))
    done = [cell for own in found.values() for cell in own.values()]
    return "\n\n".join([*parts, *below(done, "python scripts/equal_time.py run anomaly FOLDER")])


BLOCKS = {"equal_time": image_table, "equal_time_anomaly": anomaly_table}


def main() -> None:
    parser = arguments(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("plan", choices=PLANS)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--only", choices=PLANS["mnist"])
    runner.add_argument("--digits", default=DIGITS, help="held out in the anomaly plan")
    verbs.add_parser("write")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        methods = [chosen.only] if chosen.only else PLANS[chosen.plan]
        plans = {name: words(chosen.plan, name, chosen.folder, chosen.digits) for name in methods}
        sweep("equal_time", plans)
    publish(BLOCKS)


if __name__ == "__main__":
    main()
