"""``lebm diagnose RUN``: long chains of a trained model, what is wrong with them in words, and pictures of
them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.common import add_data, count, load_model, open_data, run_parser
from lebm.errors import UserError
from lebm.run.folder import plain, write_json

if TYPE_CHECKING:
    from lebm.samplers.base import LogDensity, Sampler

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """``lebm diagnose RUN``"""
    description = (
        "Run long chains from the prior and the posterior of a trained run, and say what is wrong with them."
    )
    parser = run_parser("diagnose", description, steps=500)
    add_data(parser)
    parser.add_argument(
        "--of", choices=("prior", "posterior", "both"), default="both", help="whose chains (default both)"
    )
    parser.add_argument(
        "--chains",
        type=count,
        default=32,
        help="number of chains (default 32); for the posterior, four an image",
    )
    chosen = parser.parse_args(argv)

    from lebm.evaluation.chains import CHAINS_PER_IMAGE  # slow to import, and not needed for --help

    if chosen.chains < CHAINS_PER_IMAGE or chosen.steps < 8:
        raise UserError(
            f"chains are compared with each other over time: give at least --chains {CHAINS_PER_IMAGE} and"
            " --steps 8"
        )
    folder = chosen.out or (chosen.run if chosen.run.is_dir() else chosen.run.parent) / "diagnosis"
    if folder.exists() and any(folder.iterdir()) and not chosen.force and chosen.out is not None:
        raise UserError(f"{folder} exists and is not empty; choose another --out or add --force")
    model = load_model(chosen)
    for name in ("prior", "prior_sampler", "posterior", "posterior_sampler"):
        if not hasattr(model, name):
            raise UserError(
                f"{type(model).__name__} has no {name}: diagnose looks at a prior and a posterior that are"
                " sampled by chains"
            )
    report: dict[str, Any] = {}
    for name in ("prior", "posterior") if chosen.of == "both" else (chosen.of,):
        report[name] = _diagnose(name, model, chosen, folder)
    write_json(folder / "diagnosis.json", plain(report))
    print(f"lebm: pictures and figures in {folder}")
    return 0


def _diagnose(name: str, model: Any, chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from lebm.evaluation.chains import long_chains
    from lebm.plots.chains import draw_chains
    from lebm.samplers.noise import Noise

    if name == "prior" and model.prior.is_exact:
        print("prior: drawn exactly, no chain to look at")
        return {"findings": []}
    try:
        target, sampler, count, images = _chain_of(name, model, chosen)
    except UserError as error:
        if chosen.of != "both":
            raise
        print(f"{name}: skipped, {error}")
        return {"skipped": str(error)}
    noise = Noise.samples(model.seed if chosen.seed is None else chosen.seed, "diagnose", index=range(count))
    start = getattr(model, "space", model.prior).reference(count, noise)
    report = long_chains(target, sampler, start, noise, chosen.steps, images)
    for finding in report.findings:
        print(f"{name}: {finding.kind}: {finding.text}")
    draw_chains(folder / f"{name}.png", name, report.trace, sampler.steps)
    return report.plain()


def _chain_of(name: str, model: Any, chosen: argparse.Namespace) -> tuple[LogDensity, Sampler, int, int]:
    """Target, sampler, and the number of chains and of targets."""
    space = getattr(model, "space", None)  # a hierarchical model may move its chains in other coordinates
    if name == "prior":
        return (space or model.prior).log_density, model.prior_sampler, chosen.chains, 1
    if model.posterior_sampler is None:
        raise UserError("this model infers by its encoder, no chain to look at")
    from lebm.evaluation.chains import CHAINS_PER_IMAGE

    x = open_data(chosen, model, chosen.chains // CHAINS_PER_IMAGE).all().to(model.device)
    rows = x.repeat_interleave(CHAINS_PER_IMAGE, dim=0)
    target = space.posterior(model.likelihood.given(rows)) if space else model.posterior(rows)
    return target, model.posterior_sampler, len(rows), len(x)
