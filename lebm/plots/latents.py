"""Pictures of latents of the prior and of the posterior."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lebm.metrics.rows import finite_rows
from lebm.plots.grids import rendered

__all__ = ["latent_picture", "projection"]


def latent_picture(prior: Tensor, posterior: Tensor) -> np.ndarray:
    """Draw latents of the prior and of the posterior, as points and as histograms of all coordinates.

    Args:
        prior: ``(n, d)``.
        posterior: ``(m, d)``; the axes are its first two principal components.

    Returns:
        ``(height, width, 3)`` of ``uint8``. The picture omits non-finite rows, and its title counts them.

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
    """Each cloud ``(n, d)`` on the first two principal components of ``basis``, ``(n, 2)``.

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
