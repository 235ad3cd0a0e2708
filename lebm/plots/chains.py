"""Pictures of long chains: their log-density, radius and coordinates over time."""

from __future__ import annotations

from pathlib import Path

from lebm.plots.grids import rendered, write_png
from lebm.samplers.diagnostics import autocorrelation, split_rhat
from lebm.samplers.trace import Trace


def draw_chains(path: Path, name: str, trace: Trace, short_run: int) -> None:
    """Draw a trace into a PNG file, and create its folder.

    The six panels show the log-density, the radius and two coordinates over time, histograms of the
    log-density, and autocorrelations. Coordinates are shown for the chains of the first target.

    Args:
        path: path of the file.
        name: name of the chains in the title.
        trace: trace of the long run.
        short_run: number of transitions in training, marked by a dotted line.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from lebm.plots import draw_chains
        >>> from lebm.samplers import Langevin, record
        >>> trace = record(Langevin(1, 0.5), lambda z: -0.5 * z.square().sum(dim=1), torch.randn(4, 2))
        >>> draw_chains(Path("chains.png"), "prior", trace, short_run=60)
    """
    from matplotlib.figure import Figure

    time = [trace.thin * position for position in range(len(trace.log_density))]
    coordinates = trace.states[:, : trace.states.shape[1] // trace.targets].flatten(2).cpu()
    figure = Figure(figsize=(12, 6))
    axes = figure.subplots(2, 3)
    worst = int(split_rhat(coordinates).nan_to_num(0).argmax())
    for axis, title, values in (
        (axes[0, 0], "log-density", trace.log_density),
        (axes[0, 1], "root mean square of the state", trace.radius),
        (axes[1, 0], "first coordinate", coordinates[:, :, 0]),
        (axes[1, 1], "coordinate of the largest R-hat", coordinates[:, :, worst]),
    ):
        axis.plot(time, values[:, :8].cpu().float(), lw=0.7, alpha=0.7)
        axis.plot(time, values.float().mean(dim=1).cpu(), color="black", lw=1.2)
        axis.axvline(short_run, color="0.6", ls=":")
        axis.set(title=title, xlabel="transition")
    late = trace.log_density[len(time) // 8 :]
    settled = late[late.isfinite()].cpu().float()
    # Otherwise the first steps from the reference would flatten the rest of the curve.
    if settled.numel() and settled.max() > settled.min():
        margin = 0.1 * float(settled.max() - settled.min())
        axes[0, 0].set_ylim(float(settled.min()) - margin, float(settled.max()) + margin)
    finite = trace.log_density[:, trace.log_density[-1].isfinite()].cpu().float()
    if finite.numel():
        at_end_of_short_run = finite[min(round(short_run / trace.thin), len(finite) - 1)]
        ends = [at_end_of_short_run.numpy(), finite[-1].numpy()]
        axes[0, 2].hist(ends, bins=20, label=[f"after {short_run}", f"after {time[-1]}"])
        axes[0, 2].legend(frameon=False)
    axes[0, 2].set(title="log-density of the chains")
    correlation = autocorrelation(trace.settled.flatten(2).cpu(), max_lag=len(trace.settled) // 2)
    axes[1, 2].plot(time[: len(correlation)], correlation[:, : min(20, correlation.shape[1])], lw=0.7)
    axes[1, 2].set(title="autocorrelation of 20 coordinates", xlabel="transition")
    dotted = f"the {short_run} transitions of training"
    figure.suptitle(f"{name} chains; dotted: {dotted}; black: mean of all chains")
    figure.tight_layout()
    write_png(path, rendered(figure))
