"""The data of a run, opened again: images or sentences, in the form that its model takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lebm.checkpoint import is_model_file
from lebm.config.checks import load_recipe
from lebm.data.images import ImageData, open_images, to_unit_range
from lebm.data.sources import is_own
from lebm.data.splits import spread_rows
from lebm.data.text_rows import TextRows
from lebm.data.text_sources import open_text
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.data import observation_shape, opened_module, some_rows
from lebm.metrics.anomaly import FEWEST_NORMAL
from lebm.models.text_likelihood import CategoricalLikelihood
from lebm.models.text_vocabulary import UNKNOWN

__all__ = ["Images", "SentenceRows", "open_for", "open_training", "open_validation", "stored_settings"]

_ANY_DATA = ("on_error", "cache_dir", "white_level")  # settings for reading that hold for other data too
_IMAGES = ("config_name", "revision", "crop", "image_column", "label_column", *_ANY_DATA)
_SENTENCES = ("config_name", "revision", "text_column", "on_error")


@dataclass(frozen=True)
class Images:
    """Rows of one split.

    Attributes:
        pixels: ``(N, C, H, W)`` of ``uint8``.
        labels: one label per row, or ``None``.
        source: what was opened, for messages.
        class_names: names of the labels, or ``None``.
        paths: the file of each row, or ``None``.
        rows: the row of the split that each is; ``None`` for the first rows in order.
    """

    pixels: Any
    labels: list[int] | None
    source: str
    class_names: list[str] | None = None
    paths: list[str] | None = None
    rows: np.ndarray | None = None

    @property
    def numbers(self) -> list[int]:
        """The row of each."""
        return list(range(len(self.pixels))) if self.rows is None else self.rows.tolist()

    @property
    def classes(self) -> list[str] | None:
        """The name of each row's class; ``None`` if the classes have no names."""
        if self.labels is None or self.class_names is None:
            return None
        known = dict(enumerate(self.class_names))
        return [known.get(label, "") for label in self.labels]

    def chosen(self, rows: np.ndarray) -> Images:
        """Some of the rows, in this order."""
        labels, paths = (
            None if column is None else [column[row] for row in rows] for column in (self.labels, self.paths)
        )
        return replace(self, pixels=self.pixels[rows], labels=labels, paths=paths, rows=np.asarray(rows))

    def spread(self, n: int, seed: int) -> Images:
        """A seeded choice of ``n`` rows, spread over the classes."""
        labels = None if self.labels is None else np.asarray(self.labels)
        return self.chosen(spread_rows(labels, len(self.pixels), n, seed))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers ``(B,)`` and images ``(B, C, H, W)`` in [-1, 1]."""
        numbers = torch.tensor(self.numbers)
        for start in range(0, len(self.pixels), size):
            part = torch.tensor(self.pixels[start : start + size])
            yield numbers[start : start + size], to_unit_range(part)

    def all(self) -> Tensor:
        """Every image, in [-1, 1]."""
        return to_unit_range(torch.tensor(self.pixels))


@dataclass(frozen=True)
class SentenceRows:
    """Sentences of one split, in the tokens of a model.

    Attributes:
        rows: the sentences.
        numbers: the line number of each sentence, from 0; empty lines are left out.
        source: name of the data, for messages.
        order: which of the sentences are used, in this order; all if ``None``.
    """

    rows: TextRows
    numbers: list[int]
    source: str
    order: np.ndarray | None = None
    labels: None = None
    classes: None = None
    paths: None = None

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers ``(B,)`` and sentences ``(B, T)``."""
        order = np.arange(len(self.rows)) if self.order is None else self.order
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield torch.from_numpy(index), self.rows.tokens(index)

    def all(self) -> Tensor:
        """Every sentence, ``(N, T)``."""
        return self.rows.tokens(self.order)

    def spread(self, n: int, seed: int) -> SentenceRows:
        """A seeded choice of ``n`` sentences, in the order of the data."""
        return replace(self, order=np.sort(spread_rows(None, len(self.rows), n, seed)))


def open_for(
    model: LatentEstimator, run: Path, data: str | None, split: str | None, limit: int | None
) -> Images | SentenceRows:
    """Open images in the size and colours of a model, or sentences in its vocabulary.

    Args:
        model: its decoded shape is the shape of the images.
        run: run folder or checkpoint. The data section of its ``config.yaml`` has the settings for reading.
        data: the data, as the ``path`` of :class:`~lebm.data.ImageData`; those of the run if ``None``.
        split: name of the split; if ``None``, the run's test split, or the default of other data.
        limit: use only the first ``limit`` rows.

    Raises:
        UserError: if no data are named, or the model is neither one of square images nor one of sentences.
    """
    settings = stored_settings(run)
    if model.sentences is not None:
        return _open_sentences(model.sentences, run, settings, data, split, limit)
    shape = observation_shape(model)
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise UserError(f"{run}: the model makes data of shape {shape}, not square images")
    path, split, reading = _source(run, settings, data, split, _IMAGES)
    if "crop" in reading:
        reading["crop"] = tuple(reading["crop"])
    found = open_images(path, split, image_size=shape[1], channels=shape[0], **reading)
    rows = slice(None, limit)
    labels = [int(label) for label in found.labels[rows]] if found.has_labels else None
    names = found.file_names()
    paths = None if names is None else names[rows]
    return Images(found.images[rows], labels, f"{path} ({found.split})", found.label_names, paths)


def open_validation(model: LatentEstimator, run: Path) -> Images:
    """The validation split of a run, in the form that its model takes; no held-out class is in it.

    Raises:
        UserError: if the run does not say which images it was trained on, or has no validation split.
    """
    path, module = _own_images(model, run, "it has no validation split")
    if module.validation is None:
        raise UserError(
            f"{run}: the run has no validation split; train one with --data.init_args.validation_size 0.1"
        )
    return Images(module.validation.images().numpy(), None, f"{path} (validation)")


def open_training(model: LatentEstimator, run: Path, seed: int) -> Images:
    """Up to 5,000 training images of a run, see :func:`~lebm.evaluation.data.some_rows`.

    Raises:
        UserError: if the run does not say which images it was trained on, or has too few.
    """
    path, module = _own_images(model, run, "no score can be compared with theirs")
    if len(module.train) < FEWEST_NORMAL:
        raise UserError(f"{run}: {len(module.train)} training images are too few; {FEWEST_NORMAL} are needed")
    return Images(some_rows(module.train, seed).images().numpy(), None, f"{path} (train)")


def _own_images(model: LatentEstimator, run: Path, else_: str) -> tuple[str, ImageData]:
    """The path and the data module of the images that a run was trained on."""
    settings = stored_settings(run)
    if settings.get("path") is None or model.sentences is not None:
        raise UserError(f"{run} does not say which images it was trained on, so {else_}")
    return settings["path"], opened_module(settings, None, observation_shape(model))[0]


def _source(
    run: Path, settings: dict[str, Any], data: str | None, split: str | None, names: tuple[str, ...]
) -> tuple[str, str | None, dict[str, Any]]:
    """Path and split of the data, and those settings of the run for reading that are about these data too."""
    path = data or settings.get("path")
    if path is None:
        raise UserError(f"{run} does not say which data it was trained on; name some with --data")
    own = is_own(data, settings.get("path"))
    reading = {
        name: settings[name]
        for name in names
        if settings.get(name) is not None and (own or name in _ANY_DATA)
    }
    return path, split or (settings.get("test_split") if own else None), reading


def _open_sentences(
    model: CategoricalLikelihood,
    run: Path,
    settings: dict[str, Any],
    data: str | None,
    split: str | None,
    limit: int | None,
) -> SentenceRows:
    path, split, reading = _source(run, settings, data, split, _SENTENCES)
    found = open_text(path, split, **reading)
    assert model.vocabulary is not None
    encoded = model.vocabulary.encode(found.texts[:limit], model.generator.max_length)
    unknown, total = sum(row.count(UNKNOWN) for row in encoded), sum(map(len, encoded))
    notes = [f"{unknown} of {total} tokens unknown"] if unknown else []
    left_out = {"empty": found.empty, "unreadable": found.skipped}
    notes += [f"{count} {what} lines left out" for what, count in left_out.items() if count]
    source = f"{path} ({', '.join(notes)})" if notes else path
    return SentenceRows(TextRows(encoded), found.rows[:limit], source)


def stored_settings(run: Path) -> dict[str, Any]:
    """``init_args`` of the data section of a run; empty if its recipe is not known.

    Args:
        run: a run folder, or a checkpoint in the ``checkpoints`` folder of one. A model file or the name of a
            model has no recipe: it names no data.
    """
    if is_model_file(run) or not run.exists():
        return {}
    folder = run if run.is_dir() else run.parent.parent
    config = folder / "config.yaml"
    if not config.is_file():
        return {}
    section = load_recipe(config).get("data")
    settings = section.get("init_args") if isinstance(section, dict) else None
    settings = dict(settings) if isinstance(settings, dict) else {}
    cache = settings.get("cache_dir")
    if cache is not None and not (isinstance(cache, str) and Path(cache).is_dir()):
        del settings["cache_dir"]  # a stored recipe may not create a folder
    return settings
