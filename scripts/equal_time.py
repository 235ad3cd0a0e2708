"""Methods and baselines with one generator and the same time: run them, then write results/equal_time/*.json
and docs/results.md.

    python scripts/equal_time.py run mnist FOLDER      # images and likelihood: ten CPU minutes per model
    python scripts/equal_time.py run anomaly FOLDER    # five held-out digits: three CPU minutes per model
    python scripts/equal_time.py run anomaly FOLDER --only VAE
    python scripts/equal_time.py write                 # the tables only

Every cell is one of `lebm sweep`: done cells are skipped, interrupted ones go on. A recipe ends after a
number of steps, not of minutes, so that it can be repeated anywhere; the numbers below were chosen once, from
the cost of a step on one thread, and the time each really took is in the table. Learning rates fall to about
the same share of their start in every method."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from results_page import ROOT, fill, where
from write_comparison import FIGURES, shown

from lebm.config import recipes
from lebm.run.folder import spent_minutes

RESULTS = ROOT / "results" / "equal_time"
DIGITS = "1,4,5,7,9"
FALL = 0.107  # of the learning rates over a run: what latent_mle/mnist_published has in its 12 epochs
GENERATOR = "--model.init_args.likelihood.init_args.generator"
# Eight latent coordinates and 478,384 weights in the generator; the ladder's three layers have 4 + 2 + 2 and
# nearly as many weights.
ALIKE = {
    "LatentMLE": [],
    "MultiStageNCE": [],
    "JointHierarchicalPrior": [
        *["--latent_dims", "[4,2,2]"],
        *[f"{GENERATOR}.init_args.blocks", "[[linear 784],[linear 328],[linear 328,linear 328]]"],
    ],
    "DualMCMCTeaching": [
        *[
            "--latent_dim",
            "8",
            GENERATOR,
            "lebm.models.MLPGenerator",
            f"{GENERATOR}.init_args.latent_dim",
            "8",
        ],
        *[f"{GENERATOR}.init_args.out_shape", "[1,28,28]", f"{GENERATOR}.init_args.hidden", "[400,400]"],
    ],
    "alternating back-propagation": [],
    "VAE": [],
}
# recipe, steps, batch size
PLANS = {
    "mnist": {
        "LatentMLE": ("latent_mle/mnist_published", 3300, 100),
        "MultiStageNCE": ("multistage_nce/mnist_published", 2800, 100),
        "JointHierarchicalPrior": ("joint_hierarchical/mnist", 11000, 100),
        "DualMCMCTeaching": ("dual_mcmc/mnist", 2000, 50),
        "alternating back-propagation": ("baselines/mnist_gaussian", 4000, 100),
        "VAE": ("baselines/mnist_vae", 24200, 100),
    },
    "anomaly": {
        "LatentMLE": ("latent_mle/mnist_anomaly_published", 870, 100),
        "MultiStageNCE": ("multistage_nce/mnist_anomaly", 712, 100),
        "JointHierarchicalPrior": ("joint_hierarchical/mnist", 2800, 100),
        "DualMCMCTeaching": ("dual_mcmc/mnist", 480, 50),
        "alternating back-propagation": ("baselines/mnist_gaussian", 970, 100),
        "VAE": ("baselines/mnist_vae", 5800, 100),
    },
}
IMAGES = {"mnist": 55_000, "anomaly": 50_500}
ANOMALY_FIGURES = {"auprc/anomaly_score": ("AUPRC", "{:.3f}"), "auroc/anomaly_score": ("AUROC", "{:.3f}")}
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
    chosen = [
        "-c",
        recipe,
        "--results",
        str(RESULTS),
        "--runs",
        f"runs/equal-{plan}/{method.replace(' ', '_')}",
    ]
    chosen += [
        "--data.init_args.path",
        folder,
        "--trainer.max_steps",
        str(steps),
        "--trainer.max_epochs",
        "-1",
        *ALIKE[method],
    ]
    chosen += [
        "--model.init_args.optimizer.init_args.lr_decay",
        f"{decay:.4f}",
        "--trainer.enable_progress_bar",
        "false",
    ]
    if method == "MultiStageNCE":
        chosen += ["--model.init_args.stages.init_args.steps", str(steps // 4)]
    if plan == "mnist":
        return [
            *chosen,
            "--over",
            "seed",
            "0",
            "--suite",
            "image",
            "--suite",
            "likelihood",
            "--evaluate",
            "--n-samples 5000",
        ]
    chosen += ["--data.init_args.anomaly_split", "lebm", "--data.init_args.validation_size", "0"]
    return [*chosen, "--over", "held_out_label", digits, "--suite", "anomaly", "--evaluate", "--limit 5000"]


def run(plan: str, folder: str, only: str | None, digits: str) -> None:
    for method in [only] if only else PLANS[plan]:
        sweep = [sys.executable, "-m", "lebm", "sweep", *words(plan, method, folder, digits)]
        if subprocess.run(sweep, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode:
            print(f"{method}: not complete", file=sys.stderr)


def forget_the_machine() -> None:
    """Cells name the file of their recipe in full; here they name it from the root of the project."""
    for file in RESULTS.glob("*.json"):
        file.write_text(file.read_text().replace(f'"{recipes.folder()}/', '"recipes/'))


def cells(plan: str, method: str) -> list[dict]:
    """What has been done of a method, in the order of digits."""
    name = PLANS[plan][method][0].replace("/", "-")
    argument = "seed" if plan == "mnist" else "held_out_label"
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob(f"{name}-{argument}-*.json"))]


def figure(cell: dict, name: str) -> dict | None:
    """A figure under the split of the run."""
    found = [
        entry
        for suite in cell["evaluation"]["suites"].values()
        for entry in suite["figures"]
        if entry["name"] == name
    ]
    own = [entry for entry in found if entry.get("split") in ("lebm", "test", None)]
    return (own or found or [None])[0]


def below(done: list[dict]) -> list[str]:
    """The line under a table; the commands are in the cells' files."""
    first = done[0]["fit"] if done else None
    return ["", where(first["hardware"], first["versions"], first["started"][:10])] if first else []


def image_table() -> str:
    lines = [
        "| method | steps | CPU min | CPU ms per step | "
        + " | ".join(name for name, _ in FIGURES.values())
        + " |"
    ]
    lines.append("|" + "---|" * (4 + len(FIGURES)))
    done = []
    for method in PLANS["mnist"]:
        found = cells("mnist", method)
        done += found
        row = [method, *(_cost(found[0]["fit"]) if found else ["not run"] * 3)]
        row += [
            shown(figure(found[0], name), form) if found else "not run" for name, (_, form) in FIGURES.items()
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join([*lines, *below(done)])


def _cost(fit: dict) -> list[str]:
    """Steps, minutes, and what a step costs with everything around it: loading, validation, pictures."""
    minutes = spent_minutes(fit)
    return [f"{fit['steps']:,}", f"{minutes:.1f}", f"{60_000 * minutes / fit['steps']:.0f}"]


def anomaly_table() -> str:
    digits = DIGITS.split(",")
    lines, done = [], []
    for name, (title, form) in ANOMALY_FIGURES.items():
        lines += [
            f"| {title} | CPU min per model | " + " | ".join(digits) + " |",
            "|" + "---|" * (2 + len(digits)),
        ]
        for method in PLANS["anomaly"]:
            found = {cell["value"]: cell for cell in cells("anomaly", method)}
            done += [cell for cell in found.values() if cell not in done]
            times = [spent_minutes(cell["fit"]) for cell in found.values()]
            row = [method, f"{min(times):.1f} to {max(times):.1f}" if times else "not run"]
            row += [
                shown(figure(found[digit], name), form) if digit in found else "not run" for digit in digits
            ]
            lines.append("| " + " | ".join(row) + " |")
        for detail, title in DETAILS.items() if done else ():
            known = {cell["value"]: figure(cell, name)["details"] for cell in done}
            row = [
                title,
                "",
                *(
                    f"{known[digit][detail]:.3f}" if detail in known.get(digit, {}) else ""
                    for digit in digits
                ),
            ]
            lines += ["| " + " | ".join(row) + " |"] if name.startswith("auprc") else []
        if name.startswith("auprc"):
            lines += [
                "| " + " | ".join([f"paper: {paper}", "not stated", *figures]) + " |"
                for paper, figures in PAPERS.items()
            ]
        lines.append("")
    return "\n".join([*lines[:-1], *below(done)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("plan", choices=PLANS)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--only", choices=ALIKE)
    runner.add_argument("--digits", default=DIGITS, help="held out in the anomaly plan")
    verbs.add_parser("write")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen.plan, chosen.folder, chosen.only, chosen.digits)
    forget_the_machine()
    fill("equal_time", image_table())
    fill("equal_time_anomaly", anomaly_table(), "anomaly.md")


if __name__ == "__main__":
    main()
