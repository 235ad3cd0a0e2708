"""Write what `lebm evaluate --suite revision --suite ood` measured: results/NAME.json, and its table.

python scripts/write_revision.py dual_mcmc_mnist runs/dual_mcmc-mnist
python scripts/write_revision.py dual_latents/8-0.3-0.5-0 runs/dual8-0  # latents, sigma, lr_decay, seed
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from results_page import RESULTS, arguments, grid, keep, machine, publish, reruns, stored, training

from lebm.run.folder import spent_minutes

REVISION = {
    "mse": "squared error of test reconstructions",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance (KID's kernel)",
}
SCORE, SHIPPED = "auroc/anomaly_score", "16-0.212-0.794-0"
FIT = ["command", "status", "seed", "steps", "epochs", "cpu_time_seconds", "wall_time_seconds", "started"]


def show(figure: dict | None) -> str:
    if figure is None:
        return ""
    ends = "" if figure["low"] is None else f" [{figure['low']:.4g}, {figure['high']:.4g}]"
    return f"{figure['value']:.4g}{ends}"


def revision(figures: dict[str, dict]) -> str:
    """A row a measure: the network alone, revised, and the difference where it was measured."""
    rows = []
    for prefix, label in REVISION.items():
        own = {name: figure for name, figure in figures.items() if name.startswith(f"{prefix}/")}
        alone = next(name for name in own if name.endswith(("/steps0", "/generator")))
        revised = next(name for name in own if not name.endswith(("/steps0", "/generator", "/gain")))
        gain = next((figure for name, figure in own.items() if name.endswith("/gain")), None)
        rows.append([label, show(own[alone]), show(own[revised]), show(gain)])
    return grid(["measure", "network alone", "revised", "gain"], rows)


def ood(suite: dict) -> str:
    """The AUROC of the energy for each set of other images."""
    energy = [figure for figure in suite["figures"] if figure["name"] == SCORE]
    rows = [[one["split"], show(one), suite["protocol"]["sets"][one["split"]]] for one in energy]
    return grid(["other images", "AUROC of the energy", "what they are"], rows)


def table(name: str) -> str:
    content = stored(name)
    fit, suites = content["training"], content["evaluation"]["suites"]
    protocol, origin = suites["revision"]["protocol"], suites["revision"]["origin"]
    below = (
        f"{fit['steps']:,} steps in {spent_minutes(fit):.1f} CPU minutes"
        f" ({spent_minutes(fit, 'wall'):.1f} of wall time, run {fit['status']});"
        f" {machine({**origin, 'date': fit['started'][:10]})}; seed {fit['seed']}. Distances:"
        f" {protocol['sets']} sets of {protocol['n_samples_a_set']:,} samples against the"
        f" {protocol['real_split']} split, {protocol['features_note']}; image chain of"
        f" {protocol['image_steps']['revised']} steps. In brackets 95 % intervals."
    )
    measured = revision({figure["name"]: figure for figure in suites["revision"]["figures"]})
    return "\n\n".join([measured, ood(suites["ood"]), below, reruns([(fit, content["evaluation"])])])


def latents() -> str:
    """The same measures, a row per run with other latents, another sigma or slower decay of the rates."""
    files = sorted((RESULTS / "dual_latents").glob("*.json"))
    runs = [(file.stem, "", json.loads(file.read_text())) for file in files]
    runs.append((SHIPPED, ", the recipe", stored("dual_mcmc_mnist")))
    runs.sort(key=lambda run: [float(part) for part in run[0].split("-")])
    rows, commands = [], []
    for name, note, content in runs:
        fit, suites = content["training"], content["evaluation"]["suites"]
        own = {figure["name"]: figure["value"] for figure in suites["revision"]["figures"]}
        seen = {
            figure["split"]: figure["value"] for figure in suites["ood"]["figures"] if figure["name"] == SCORE
        }
        alone, revised = own["mse/steps0"], own["mse/steps10"]
        distances = [f"{own[f'frechet_distance/digits64/{kind}']:.1f}" for kind in ("generator", "revised")]
        errors = [f"{alone:.4f}", f"{revised:.4f}", f"{alone / revised:.2f}"]
        minutes = f"{spent_minutes(fit):.0f}"
        size, *others = name.split("-")
        told = [size + note, *others, f"{fit['steps']:,}", minutes]
        rows.append([*told, *distances, *errors, f"{seen['upside_down']:.2f}"])
        commands.append((fit, content["evaluation"]))
    head = ["latents", "sigma", "`lr_decay`", "seed", "steps", "CPU min", "generator", "revised"]
    head += ["MSE, inference", "MSE, + 10 steps", "ratio", "AUROC, upside down"]
    origins = [run["evaluation"]["suites"]["revision"]["origin"] for _, _, run in runs]
    return "\n\n".join([grid(head, rows), f"{machine(*origins)}.", reruns(commands)])


BLOCKS = {"dual_mcmc_mnist": partial(table, "dual_mcmc_mnist"), "dual_latents": latents}


def main() -> None:
    from lebm.evaluation.record import read_evaluation, without_curves

    parser = arguments(__doc__)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    measured = without_curves(read_evaluation(options.run / "evaluation.json"))
    fit = json.loads((options.run / "summary.json").read_text())
    suites = {name: measured["suites"][name] for name in ("revision", "ood")}
    evaluated = {key: measured[key] for key in ("checkpoint_sha256", "weights", "seed")}
    content = {"training": training(fit, FIT), "evaluation": {**evaluated, "suites": suites}}
    keep(options.name, content)
    publish(BLOCKS)


if __name__ == "__main__":
    main()
