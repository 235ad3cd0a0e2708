"""Densities in the plane, for experiments that fit into one picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lebm.data.arrays import ArrayData
from lebm.samplers.noise import keyed_seed

__all__ = ["PlaneData", "plane_samples"]


def _rings(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    label = torch.randint(2, (n,), generator=generator)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = 1.0 + 1.2 * label + 0.08 * torch.randn(n, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), label


def _moons(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    label = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    side = 1.0 - 2.0 * label
    points = 1.4 * torch.stack(
        [side * angle.cos() + 0.5 * (1 - side) - 0.5, side * angle.sin() + 0.25 * (1 - side)], dim=1
    )
    return points + torch.tensor([0.0, -0.35]) + 0.1 * torch.randn(n, 2, generator=generator), label


def _spiral(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    label = torch.randint(2, (n,), generator=generator)
    angle = 3 * math.pi * torch.rand(n, generator=generator).sqrt()
    radius = 0.25 * angle * (1.0 - 2.0 * label)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return points + 0.08 * torch.randn(n, 2, generator=generator), label


def _grid(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    label = torch.randint(9, (n,), generator=generator)
    centres = torch.stack([label % 3, label.div(3, rounding_mode="floor")], dim=1).float() - 1
    return 1.6 * centres + 0.12 * torch.randn(n, 2, generator=generator), label


SHAPES: dict[str, Callable[[int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "rings": _rings,
    "moons": _moons,
    "spiral": _spiral,
    "grid": _grid,
}


def plane_samples(shape: str, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points ``(n, 2)`` of a density in the plane, within about 3 of the origin, and their pieces ``(n,)``.

    The piece of a point is the number of the ring, moon, arm or cell that it comes from.

    Args:
        shape: ``"rings"``, ``"moons"``, ``"spiral"`` or ``"grid"``.
        n: number of points, at least 1.
        seed: seed of the points, which are a pure function of it.

    Raises:
        ValueError: for another shape, or fewer than one point.

    Example:
        >>> from lebm.data import plane_samples
        >>> points, pieces = plane_samples("rings", n=1000)
        >>> points.shape, pieces.unique().tolist()
        (torch.Size([1000, 2]), [0, 1])
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}; choose one of {', '.join(sorted(SHAPES))}")
    if n < 1:
        raise ValueError(f"at least 1 point is needed, not {n}")
    return SHAPES[shape](n, torch.Generator().manual_seed(seed))


class PlaneData(ArrayData):
    """Points of a density in the plane; ``x`` is ``(B, 2)`` and ``label`` is the piece of each point.

    Args:
        shape: ``rings``, ``moons``, ``spiral`` or ``grid``.
        n_train: number of training points.
        n_eval: number of validation points, and of other points for testing.
        batch_size: points per training step, over all processes together; the number of
            processes must divide it.
        eval_batch_size: the same for evaluation; ``null`` is ``batch_size``.
        seed: seed of the points and of the order of training.

    Raises:
        ValueError: for a number below 1 or an unknown shape.
        UserError: in :meth:`train_dataloader`, if the processes cannot share a batch.

    Example:
        >>> from lebm.data import PlaneData
        >>> data = PlaneData("moons", n_train=1000, batch_size=50)
        >>> data.setup()
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["x"].shape, batch["label"].shape
        (torch.Size([50, 2]), torch.Size([50]))
    """

    def __init__(
        self,
        shape: Literal["rings", "moons", "spiral", "grid"] = "rings",
        n_train: int = 10000,
        n_eval: int = 2000,
        batch_size: int = 100,
        eval_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        if min(n_train, n_eval, batch_size, eval_batch_size or 1) < 1:
            raise ValueError(
                f"n_train {n_train}, n_eval {n_eval}, batch sizes {batch_size} and {eval_batch_size} must all"
                " be at least 1"
            )
        super().__init__(shape, batch_size, eval_batch_size, seed=seed)
        self._sizes = {"train": n_train, "validation": n_eval, "test": n_eval}

    def _read(self) -> dict[str, Tensor]:
        drawn = {
            split: plane_samples(self.path, n, keyed_seed(self.seed, split))
            for split, n in self._sizes.items()
        }
        labels = {f"{split}_label": pieces for split, (_, pieces) in drawn.items()}
        return {split: points for split, (points, _) in drawn.items()} | labels
