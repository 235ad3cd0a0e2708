"""Pictures of latents of the prior and of the posterior, of the stages of a prior, and of long chains."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lebm.metrics.rows import finite_rows
from lebm.plots.grids import rendered, write_png
from lebm.samplers.base import LogDensity
from lebm.samplers.diagnostics import autocorrelation, split_rhat
from lebm.samplers.trace import Trace


def latent_picture(prior: Tensor, posterior: Tensor) -> np.ndarray:
    """Draw latents of the prior and of the posterior, as points and as histograms of all coordinates.

    Args:
        prior: latents ``(n, d)``.
        posterior: latents ``(m, d)``, whose first two principal components are the axes.

    Returns:
        Picture ``(height, width, 3)`` of ``uint8``. Non-finite rows are left out and counted in the title.

    Example:
        >>> import torch
        >>> from lebm.plots import latent_picture
        >>> latent_picture(torch.randn(50, 8), torch.randn(50, 8)).shape
        (500, 1000, 3)
    """
    from matplotlib.figure import Figure

    given = {"posterior": posterior, "prior": prior}
    clouds = {name: cloud.detach().cpu().double().flatten(1) for name, cloud in given.items()}
    lost = sum(int((~finite_rows(cloud)).sum()) for cloud in clouds.values())
    clouds = {name: cloud[finite_rows(cloud)] for name, cloud in clouds.items()}
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    if lost:
        figure.suptitle(f"{lost} non-finite latents left out")
    colours = {"posterior": "tab:orange", "prior": "tab:blue"}
    points = dict(zip(clouds, projection(clouds["posterior"], *clouds.values()), strict=True))
    values = torch.linspace(-4, 4, 200, dtype=torch.float64)
    for name, cloud in clouds.items():
        colour, label = colours[name], f"{name} ({cloud.shape[0]})"
        left.scatter(*points[name].T.tolist(), s=6, alpha=0.5, linewidths=0, color=colour, label=label)
        coordinates = cloud.flatten().numpy()
        right.hist(coordinates, bins=100, density=True, histtype="step", color=colour, label=name)
    standard = torch.exp(-values.square() / 2) / (2 * torch.pi) ** 0.5
    right.plot(values, standard, color="black", linewidth=1, linestyle="--", label="N(0, 1)")
    left.set(
        xlabel="posterior component 1", ylabel="posterior component 2", title="prior and posterior latents"
    )
    right.set(xlabel="coordinate", ylabel="density", title="all coordinates")
    left.legend()
    right.legend()
    return rendered(figure)


def projection(basis: Tensor, *clouds: Tensor) -> list[Tensor]:
    """Project each cloud ``(n, d)`` onto the first two principal components of ``basis``, ``(n, 2)``.

    The sign of a component makes its largest loading positive.
    """
    if basis.shape[1] < 2:
        return [torch.cat([cloud, torch.zeros_like(cloud)], dim=1) for cloud in clouds]
    if basis.shape[0] < 3:  # too few rows for two components
        return [cloud[:, :2] for cloud in clouds]
    centre = basis.mean(dim=0)
    axes = torch.linalg.svd(basis - centre, full_matrices=False).Vh[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return [(cloud - centre) @ (axes * largest.sign()).T for cloud in clouds]


def stage_picture(
    posterior: Tensor, priors: Mapping[str, Tensor], densities: Sequence[LogDensity] | None = None
) -> np.ndarray:
    """Draw the aggregate posterior and one panel per prior.

    Args:
        posterior: latents ``(n, d)``, whose first two principal components are the axes.
        priors: samples ``(m, d)`` by title.
        densities: unnormalised log-density of each prior, drawn under the points, only if ``d`` is 2; the
            axes are then the two coordinates.

    Returns:
        Picture ``(height, width, 3)`` of ``uint8``.

    Example:
        >>> import torch
        >>> from lebm.plots import stage_picture
        >>> stage_picture(torch.randn(50, 8), {"stage 1": torch.randn(50, 8)}).shape
        (350, 640, 3)
    """
    from matplotlib.figure import Figure

    clouds = [cloud.detach() for cloud in (posterior, *priors.values())]
    flat = densities is not None
    points = [cloud.cpu() for cloud in (clouds if flat else projection(clouds[0], *clouds))]
    limit = max(1e-3, 1.15 * float(torch.cat(points[:2]).abs().quantile(0.998)))
    columns = min(4, len(points))
    rows = math.ceil(len(points) / columns)
    figure = Figure(figsize=(3.2 * columns, 3.5 * rows), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    titles = ("aggregate posterior", *priors)
    for number, (panel, title, cloud) in enumerate(zip(panels, titles, points, strict=False)):
        if number and densities is not None:
            axis = torch.linspace(-limit, limit, 120).to(clouds[0])
            with torch.no_grad():  # the root of the density, with maximum 1, which also shows the tails
                value = densities[number - 1](torch.cartesian_prod(axis, axis)).reshape(120, 120).T
            heat = (0.5 * (value - value.max())).exp().cpu().numpy()
            panel.imshow(heat, extent=[-limit, limit] * 2, origin="lower", cmap="Blues")
        colour = "tab:blue" if number and not flat else "black" if number else "tab:orange"
        panel.scatter(*cloud.T.tolist(), s=3, alpha=0.5, linewidths=0, color=colour)
        panel.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for panel in panels[len(points) :]:
        panel.set_axis_off()
    return rendered(figure)


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
