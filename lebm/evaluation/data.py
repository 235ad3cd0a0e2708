"""The images of an evaluation: the splits of the run, and both protocols of a held-out label."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lebm.data.dataset import ImageRows
from lebm.data.images import ImageData, to_unit_range
from lebm.data.sets import HELD_OUT, by_number
from lebm.data.sources import is_own
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel

log = logging.getLogger("lebm.evaluation")

__all__ = [
    "PROTOCOLS",
    "RunImages",
    "batches",
    "chosen_rows",
    "first_normal",
    "normal_rows",
    "observation_shape",
    "opened_module",
    "some_rows",
    "subset",
]

PROTOCOLS = ("lebm", "official")


@dataclass(frozen=True)
class RunImages:
    """The splits of a run, opened again.

    Attributes:
        train: rows that training used; ``None`` if the checkpoint does not name its data.
        test: rows of the test pass.
        protocols: with a held-out label, the test split of each protocol, without the rows that training
            used.
        protocol_sizes: number of rows of each of these test splits, with the rows that training used.
        held_out_label: the label of the anomalies, or several, or ``None``.
        description: path, sizes, seed and protocol, as plain values.

    Example:
        >>> import numpy as np
        >>> from lebm.data.dataset import ImageRows
        >>> from lebm.evaluation.data import RunImages, batches
        >>> rows = ImageRows([np.zeros((10, 1, 4, 4), np.uint8)], np.zeros(10, np.int64), np.arange(10))
        >>> images = RunImages(None, rows, {}, {}, held_out_label=None, description={"path": "black"})
        >>> [tuple(batch["x"].shape) for batch in batches(images.test, size=8)]
        [(8, 1, 4, 4), (2, 1, 4, 4)]
    """

    train: ImageRows | None
    test: ImageRows
    protocols: dict[str, ImageRows]
    protocol_sizes: dict[str, int]
    held_out_label: int | list[int] | None
    description: dict[str, Any]

    @classmethod
    def open(
        cls, settings: dict[str, Any], data: str | None, shape: tuple[int, ...], limit: int | None = None
    ) -> RunImages:
        """Open the images that the data section of a run describes.

        Args:
            settings: ``init_args`` of the run's ``ImageData``; empty if they are not known.
            data: another data set to use in its place.
            shape: ``(C, H, W)`` of the model's images.
            limit: use this many test images, chosen by the run's seed.

        Raises:
            UserError: if no data are named, if there is no test split, or if the model does not make square
                images.
        """
        module, arguments = opened_module(settings, data, shape, limit)
        if module.test is None:
            raise UserError(f"data path {module.path!r}: there is no test split")
        own = is_own(data, settings.get("path"))
        train = module.train if own and settings else None
        splits = _protocols(module, module.path, arguments)
        trained = np.empty(0, dtype=np.int64) if train is None else train.rows
        unseen = {name: subset(rows, ~np.isin(rows.rows, trained)) for name, rows in splits.items()}
        sizes = {name: len(rows) for name, rows in splits.items()}
        return cls(train, module.test, unseen, sizes, module.held_out_label, module.describe_split())


def opened_module(
    settings: dict[str, Any], data: str | None, shape: tuple[int, ...], limit: int | None = None
) -> tuple[ImageData, dict[str, Any]]:
    """The data module of a run with its splits made, and its arguments but the path.

    For arguments and errors see :meth:`RunImages.open`.
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise UserError(
            f"the model makes data of shape {tuple(shape)}, but these suites measure models of square images"
        )
    names = inspect.signature(ImageData).parameters
    trained = {name: value for name, value in settings.items() if name in names}
    trained["crop"] = tuple(trained["crop"]) if trained.get("crop") else None
    own = is_own(data, trained.get("path"))
    path = trained.get("path") if own else data
    if not path:
        raise UserError("the run does not name its training images; name some with --data")
    if own:
        arguments = {name: value for name, value in trained.items() if name != "path"}
    else:
        kept = ("seed", "anomaly_split", "cache_dir", "white_level")
        arguments = {name: trained[name] for name in kept if name in trained}
    arguments |= {"image_size": shape[1], "channels": shape[0], "limit_eval": limit}
    if not own:
        arguments |= _held_out_elsewhere(path, trained, arguments)
    module = ImageData(path, **arguments)
    module.setup()
    return module, arguments


def _held_out_elsewhere(path: str, trained: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a run that hold out classes, for other data: none where these lack such a class, or
    where it is given by its number.

    Args:
        path: the other data.
        trained: the arguments of the run.
        known: the other arguments for the other data.
    """
    held_out = {name: trained[name] for name in HELD_OUT if trained.get(name) is not None}
    try:
        if any(map(by_number, held_out.values())):
            raise UserError(f"{held_out} is a number of the run's own data, and only a name holds for others")
        ImageData(path, **held_out, **known).setup()
    except UserError as error:
        log.warning("no class is held out of %s, every class counts as normal there: %s", path, error)
        return {}
    return held_out


def _protocols(module: ImageData, path: str, settings: dict[str, Any]) -> dict[str, ImageRows]:
    """The test split of both protocols of a held-out label; with a limit, only that of the run's protocol."""
    if not module.train.held_out:
        return {}
    if settings.get("limit_eval") is not None:
        return {settings.get("anomaly_split", "lebm"): module.test} if module.test is not None else {}
    splits = {}
    for name in PROTOCOLS:
        other = ImageData(path, **{**settings, "anomaly_split": name})
        other.setup()
        if other.test is not None:
            splits[name] = other.test
    return splits


@torch.no_grad()
def observation_shape(model: LatentModel) -> tuple[int, ...]:
    """Shape of one observation that a model decodes, ``(C, H, W)`` for images."""
    z = torch.zeros(1, model.latent_dim, device=model.device).to(model.dtype)
    return tuple(model.decode(z).shape[1:])


def subset(rows: ImageRows, keep: np.ndarray) -> ImageRows:
    """Some rows of a split; ``keep`` holds their positions in the split, or one flag per row."""
    part = copy.copy(rows)
    part.rows, part.labels = rows.rows[keep], rows.labels[torch.from_numpy(np.asarray(keep))]
    return part


def normal_rows(images: RunImages) -> ImageRows:
    """The test rows of a run without those of the held-out labels."""
    anomaly = images.test.anomaly
    return images.test if anomaly is None else subset(images.test, ~anomaly.numpy())


def chosen_rows(count: int, n: int, seed: int) -> np.ndarray:
    """The first ``n`` of a seeded permutation of ``count`` rows, in rising order, ``(min(n, count),)``."""
    return np.sort(np.random.RandomState(seed).permutation(count)[:n])


def first_normal(images: RunImages, n: int, seed: int) -> Tensor:
    """:func:`chosen_rows` of :func:`normal_rows`: images ``(n, C, H, W)`` in [-1, 1]."""
    normal = normal_rows(images)
    return to_unit_range(normal.images(chosen_rows(len(normal), n, seed)))


def some_rows(rows: ImageRows, seed: int, n: int = 5000) -> ImageRows:
    """``n`` rows chosen by a seed, or all if there are fewer, in the order of the split."""
    mask = np.zeros(len(rows), dtype=bool)
    mask[np.random.default_rng(seed).permutation(len(rows))[:n]] = True
    return subset(rows, mask)


def batches(
    rows: ImageRows, size: int, device: torch.device | str = "cpu", first: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Batches ``{"x", "label", "index", ...}`` of a split, in order, on the device.

    Args:
        rows: the split.
        size: rows per batch.
        device: of the batches.
        first: ``index`` of the first row.

    Yields:
        A batch; ``x`` is in [-1, 1].
    """
    for start in range(0, len(rows), size):
        batch = rows.__getitems__(range(start, min(len(rows), start + size)))
        batch["index"] = batch["index"] + first
        yield {
            name: (to_unit_range(part) if name == "x" else part).to(device) for name, part in batch.items()
        }
