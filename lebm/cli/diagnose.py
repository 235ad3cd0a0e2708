"""``lebm diagnose RUN``: long chains of a trained model, what is wrong with them in words, and pictures of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.runs import plain, write_json
from lebm.cli.verbs import _add_data, _count, _images, _load, _parser
from lebm.errors import UserError

if TYPE_CHECKING:
    from lebm.samplers.base import LogDensity, Sampler
    from lebm.samplers.trace import Trace

__all__ = ["main"]

CHAINS_AN_IMAGE = 4


def main(argv: list[str]) -> int:
    """``lebm diagnose RUN``"""
    description = "Run long chains from the prior and the posterior of a trained run, and say what is wrong with them."
    parser = _parser("diagnose", description, steps=500)
    _add_data(parser)
    parser.add_argument("--of", choices=("prior", "posterior", "both"), default="both", help="whose chains (default both)")
    parser.add_argument("--chains", type=_count, default=32, help="number of chains (default 32); for the posterior, four an image")
    chosen = parser.parse_args(argv)
    if chosen.chains < CHAINS_AN_IMAGE or chosen.steps < 8:
        raise UserError(f"chains are compared with each other over time: give at least --chains {CHAINS_AN_IMAGE} and --steps 8")
    folder = chosen.out or (chosen.run if chosen.run.is_dir() else chosen.run.parent) / "diagnosis"
    if folder.exists() and any(folder.iterdir()) and not chosen.force and chosen.out is not None:
        raise UserError(f"{folder} exists and is not empty; choose another --out or add --force")
    model = _load(chosen)
    for name in ("prior", "prior_sampler", "posterior", "posterior_sampler"):
        if not hasattr(model, name):
            raise UserError(f"{type(model).__name__} has no {name}: diagnose looks at a prior and a posterior that are sampled by chains")
    report: dict[str, Any] = {}
    for name in ("prior", "posterior") if chosen.of == "both" else (chosen.of,):
        report[name] = _diagnose(name, model, chosen, folder)
    write_json(folder / "diagnosis.json", plain(report))
    print(f"lebm: pictures and figures in {folder}")
    return 0


def _diagnose(name: str, model: Any, chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from lebm.evaluation.chains import long_chains
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
    _draw(folder / f"{name}.png", name, report.trace, sampler.steps)
    return report.plain()


def _chain_of(name: str, model: Any, chosen: argparse.Namespace) -> tuple[LogDensity, Sampler, int, int]:
    """Target, sampler, and the number of chains and of targets."""
    space = getattr(model, "space", None)  # a hierarchical model may move its chains in other coordinates
    if name == "prior":
        return (space or model.prior).log_density, model.prior_sampler, chosen.chains, 1
    if model.posterior_sampler is None:
        raise UserError("this model infers by its encoder, no chain to look at")
    x = _images(chosen, model, chosen.chains // CHAINS_AN_IMAGE).all().to(model.device)
    rows = x.repeat_interleave(CHAINS_AN_IMAGE, dim=0)
    target = space.posterior(model.likelihood.given(rows)) if space else model.posterior(rows)
    return target, model.posterior_sampler, len(rows), len(x)


def _draw(path: Path, name: str, trace: Trace, short_run: int) -> None:
    """Log-density, radius and two coordinates over time, the log-densities' histogram, and autocorrelations."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from lebm.samplers.diagnostics import autocorrelation, split_rhat

    time = [trace.thin * record for record in range(len(trace.log_density))]
    coordinates = trace.states[:, : trace.states.shape[1] // trace.targets].flatten(2).cpu()  # of the first target
    figure, axes = plt.subplots(2, 3, figsize=(12, 6))
    for axis, title, values in (
        (axes[0, 0], "log-density", trace.log_density),
        (axes[0, 1], "root mean square of the state", trace.radius),
        (axes[1, 0], "first coordinate", coordinates[:, :, 0]),
        (axes[1, 1], "coordinate of the largest R-hat", coordinates[:, :, int(split_rhat(coordinates).nan_to_num(0).argmax())]),
    ):
        axis.plot(time, values[:, :8].cpu().float(), lw=0.7, alpha=0.7)
        axis.plot(time, values.float().mean(dim=1).cpu(), color="black", lw=1.2)
        axis.axvline(short_run, color="0.6", ls=":")
        axis.set(title=title, xlabel="transition")
    settled = trace.log_density[len(time) // 8 :][trace.log_density[len(time) // 8 :].isfinite()].cpu().float()
    if settled.numel() and settled.max() > settled.min():  # the first steps from the reference would flatten all others
        margin = 0.1 * float(settled.max() - settled.min())
        axes[0, 0].set_ylim(float(settled.min()) - margin, float(settled.max()) + margin)
    finite = trace.log_density[:, trace.log_density[-1].isfinite()].cpu().float()
    if finite.numel():
        at_end_of_short_run = finite[min(round(short_run / trace.thin), len(finite) - 1)]
        axes[0, 2].hist([at_end_of_short_run.numpy(), finite[-1].numpy()], bins=20, label=[f"after {short_run}", f"after {time[-1]}"])
        axes[0, 2].legend(frameon=False)
    axes[0, 2].set(title="log-density of the chains")
    correlation = autocorrelation(trace.settled.flatten(2).cpu(), max_lag=len(trace.settled) // 2)
    axes[1, 2].plot(time[: len(correlation)], correlation[:, : min(20, correlation.shape[1])], lw=0.7)
    axes[1, 2].set(title="autocorrelation of 20 coordinates", xlabel="transition")
    figure.suptitle(f"{name} chains; dotted: the {short_run} transitions of training; black: mean of all chains")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
