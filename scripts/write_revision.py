"""Write what `lebm evaluate --suite revision --suite ood` measured of a run: results/NAME.json, and its table
in docs/results.md.

    python scripts/write_revision.py dual_mcmc_mnist runs/dual_mcmc-mnist

Nothing is typed in. The table replaces what stands between `<!-- NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from results_page import fill, keep, where

from lebm.evaluation.record import read_evaluation, without_curves

REVISION = {
    "mse": "squared error of test reconstructions",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance (KID's kernel)",
}


def show(figure: dict) -> str:
    ends = "" if figure["low"] is None else f" [{figure['low']:.4g}, {figure['high']:.4g}]"
    return f"{figure['value']:.4g}{ends}"


def revision_rows(figures: dict[str, dict]) -> list[str]:
    """A row a measure: the network alone, revised, and the difference where it was measured."""
    rows = ["| measure | network alone | revised | gain |", "|---|---|---|---|"]
    for prefix, label in REVISION.items():
        own = {name: figure for name, figure in figures.items() if name.startswith(f"{prefix}/")}
        alone = next(figure for name, figure in own.items() if name.endswith(("/steps0", "/generator")))
        revised = next(
            figure for name, figure in own.items() if not name.endswith(("/steps0", "/generator", "/gain"))
        )
        gain = next((figure for name, figure in own.items() if name.endswith("/gain")), None)
        rows.append(f"| {label} | {show(alone)} | {show(revised)} | {show(gain) if gain else ''} |")
    return rows


def ood_rows(figures: list[dict], protocol: dict) -> list[str]:
    rows = ["| other images | AUROC of the energy | what they are |", "|---|---|---|"]
    energy = [figure for figure in figures if figure["name"] == "auroc/anomaly_score"]
    return rows + [
        f"| {figure['split']} | {show(figure)} | {protocol['sets'][figure['split']]} |" for figure in energy
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    measured, fit = (
        without_curves(read_evaluation(options.run / "evaluation.json")),
        json.loads((options.run / "summary.json").read_text()),
    )
    suites = {name: measured["suites"][name] for name in ("revision", "ood")}
    origin = suites["revision"]["origin"]
    kept = {
        key: fit[key]
        for key in (
            "command",
            "status",
            "seed",
            "steps",
            "epochs",
            "cpu_time_seconds",
            "wall_time_seconds",
            "started",
        )
    }
    evaluated = {key: measured[key] for key in ("checkpoint_sha256", "weights", "seed")}
    content = {"training": kept, "evaluation": {**evaluated, "suites": suites}}
    keep(options.name, content)
    lines = revision_rows({figure["name"]: figure for figure in suites["revision"]["figures"]})
    lines += ["", *ood_rows(suites["ood"]["figures"], suites["ood"]["protocol"]), ""]
    protocol = suites["revision"]["protocol"]
    machine = where(origin["hardware"], origin["versions"], fit["started"][:10])
    lines.append(
        f"{fit['steps']:,} steps in {fit['cpu_time_seconds'] / 60:.1f} CPU minutes"
        f" ({fit['wall_time_seconds'] / 60:.1f} of wall time, run {fit['status']}); {machine}; seed"
        f" {fit['seed']}. Distances: {protocol['sets']} sets of {protocol['n_samples_a_set']:,} samples"
        f" against the {protocol['real_split']} split, {protocol['features_note']}; image chain of"
        f" {protocol['image_steps']['revised']} steps. In brackets 95 % intervals. Commands:"
    )
    commands = dict.fromkeys([fit["command"], *(suite["origin"]["command"] for suite in suites.values())])
    lines += ["", *(f"    {command}" for command in commands)]
    fill(options.name, "\n".join(lines))


if __name__ == "__main__":
    main()
