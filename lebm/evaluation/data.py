"""The images of an evaluation: the splits of the run, and both protocols of a held-out label."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lebm.data.images import ClassError, ImageData
from lebm.data.module import SplitData
from lebm.data.rows import ImageRows, Rows, to_unit_range
from lebm.data.splits import limited
from lebm.errors import data_error
from lebm.metrics.anomaly import FEWEST_NORMAL

log = logging.getLogger("lebm.evaluation")

__all__ = ["RunImages", "batches", "first_normal", "normal_rows", "some_rows", "training_rows"]


@dataclass(frozen=True)
class RunImages:
    """The splits of a run, opened again.

    Attributes:
        train: training rows; ``None`` if the run was trained on other data.
        test: test rows.
        protocols: test split of each protocol of a held-out label, without training rows.
        protocol_sizes: number of rows of each of these test splits, including training rows.
        held_out_label: label or labels of the anomalies, or ``None``.

    Example:
        >>> from lebm.data import ImageData
        >>> from lebm.evaluation.data import RunImages, batches
        >>> images = RunImages.of(ImageData("embedded:mnist", limit_eval=10))
        >>> [tuple(batch["x"].shape) for batch in batches(images.test, size=8)]
        [(8, 1, 28, 28), (2, 1, 28, 28)]
    """

    train: ImageRows | None
    test: ImageRows
    protocols: dict[str, ImageRows]
    protocol_sizes: dict[str, int]
    held_out_label: int | list[int] | None

    @classmethod
    def of(cls, module: SplitData) -> RunImages:
        """Return the splits of a data module from :func:`~lebm.evaluation.reopen.reopen`.

        Raises:
            UserError: without a test split.
        """
        try:
            module.setup()  # type: ignore[call-arg]
        except ClassError as error:
            if not module.foreign:
                raise
            log.warning("no class is held out, every class counts as normal: %s", error)
            assert isinstance(module, ImageData)  # other data have no classes to hold out
            module.held_out_label = module.normal_label = None
            module.setup()  # type: ignore[call-arg]
        if module.test is None:
            hint = f"{module.test_hint} of the recipe, or name data with a test split by --data"
            raise data_error(module.path, f"there is no test split; {hint}")
        train = None if module.foreign else module.train
        splits: dict[str, ImageRows] = {}
        if isinstance(module, ImageData) and module.train.held_out:
            # A limit chooses rows of the run's own protocol.
            names = ("lebm", "official") if module.limit_eval is None else (module.anomaly_split,)
            splits = {name: rows for name in names if (rows := module.test_of(name)) is not None}
        trained = [] if train is None else train.rows
        unseen = {name: rows.subset(~np.isin(rows.rows, trained)) for name, rows in splits.items()}
        sizes = {name: len(rows) for name, rows in splits.items()}
        held_out = getattr(module, "held_out_label", None)
        return cls(train, module.test, unseen, sizes, held_out)


def normal_rows(images: RunImages) -> ImageRows:
    """Return the test rows of a run without the held-out labels."""
    anomaly = images.test.anomaly
    return images.test if anomaly is None else images.test.subset(~anomaly.numpy())


def first_normal(images: RunImages, n: int, seed: int) -> Tensor:
    """Return ``n`` of :func:`normal_rows` chosen by a seed: images ``(n, C, H, W)`` in [-1, 1]."""
    normal = normal_rows(images)
    return normal.observations(limited(np.arange(len(normal)), n, seed))


def some_rows(rows: ImageRows, seed: int, n: int = 5000) -> ImageRows:
    """Return ``n`` rows chosen by a seed, or all if there are fewer, in the order of the split."""
    return rows.subset(np.sort(np.random.default_rng(seed).permutation(len(rows))[:n]))


def training_rows(module: SplitData, seed: int) -> Rows:
    """Return up to 5,000 training rows (:func:`some_rows`) as a reference of scores; too few are an error."""
    module.setup()  # type: ignore[call-arg]
    if len(module.train) < FEWEST_NORMAL:
        given = f"{len(module.train)} training {module.noun}"
        raise data_error(module.path, f"{given} are too few; {FEWEST_NORMAL} are needed")
    part = some_rows(module.train, seed)
    return Rows(part, f"{module.path} (train)", np.arange(len(part)))


def batches(
    rows: ImageRows, size: int, device: torch.device | str = "cpu", first: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Iterate over batches of at most ``size`` rows, in order, with ``x`` in [-1, 1].

    Their entries are ``x``, ``label``, ``index``, which begins at ``first``, and ``anomaly`` with held-out
    labels.
    """
    for start in range(0, len(rows), size):
        batch = rows.__getitems__(range(start, min(len(rows), start + size)))
        batch["index"] = batch["index"] + first
        if batch["x"].dtype == torch.uint8:
            batch["x"] = to_unit_range(batch["x"])
        yield {name: part.to(device) for name, part in batch.items()}
