"""Pictures of the prior after each stage, beside the aggregate posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lebm.plots.grids import rendered
from lebm.plots.latents import projection

__all__ = ["stage_picture"]

LogDensity = Callable[[Tensor], Tensor]


def stage_picture(
    posterior: Tensor, priors: Mapping[str, Tensor], densities: Sequence[LogDensity] | None = None
) -> np.ndarray:
    """Draw the aggregate posterior and one panel per prior.

    Args:
        posterior: ``(n, d)``. Its first two principal components are the axes.
        priors: samples ``(m, d)`` by title.
        densities: the unnormalised log-density of each prior, drawn under the points. Give them only if ``d``
            is 2; the axes are then the two coordinates.

    Returns:
        ``(height, width, 3)`` of ``uint8``.

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
            heat = _heat(densities[number - 1], clouds[0], limit)
            panel.imshow(heat, extent=[-limit, limit] * 2, origin="lower", cmap="Blues")
        colour = "tab:blue" if number and not flat else "black" if number else "tab:orange"
        panel.scatter(*cloud.T.tolist(), s=3, alpha=0.5, linewidths=0, color=colour)
        panel.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for panel in panels[len(points) :]:
        panel.set_axis_off()
    return rendered(figure)


def _heat(log_density: LogDensity, like: Tensor, limit: float, cells: int = 120) -> np.ndarray:
    """The square root of the density on a grid, with maximum 1; the root shows the tails too."""
    axis = torch.linspace(-limit, limit, cells).to(like)
    across, up = torch.meshgrid(axis, axis, indexing="xy")
    with torch.no_grad():
        value = log_density(torch.stack([across.flatten(), up.flatten()], dim=1)).reshape(cells, cells)
    return (0.5 * (value - value.max())).exp().cpu().numpy()
