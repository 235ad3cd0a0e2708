"""Images for every method: a data module for the Hub, parquet files, image folders and packaged data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lebm.data.cache import CachedImages, open_images, split_names
from lebm.data.decoding import Decoding
from lebm.data.loader import coin_flips
from lebm.data.module import SplitData
from lebm.data.rows import ImageRows, Rows, to_unit_range
from lebm.data.splits import check_size, chosen_splits, held_out_rows, is_normal
from lebm.errors import UserError, at_least, data_error, one_line

Labels = int | str | list[int | str] | None
HELD_OUT = ("held_out_label", "normal_label")
"""The arguments of :class:`~lebm.data.images.ImageData` that hold out classes."""


class ClassError(UserError):
    """An error for a held-out class that the data do not have."""


def held_out_classes(
    path: str, splits: Mapping[str, CachedImages], names: Mapping[int, str], anomalous: Labels, normal: Labels
) -> list[int]:
    """Return the numbers of the held-out classes in ascending order; empty if both arguments are.

    These are the ``anomalous`` classes, or all except the ``normal`` classes. A name takes precedence over a
    number: if the classes are called ``"1"``, ``"10"`` and ``"2"``, the class 2 is the last one.
    """
    of_normal = anomalous in (None, [])
    wanted, name = (normal, "normal_label") if of_normal else (anomalous, "held_out_label")
    if wanted is None or wanted == []:
        return []
    where, way = f"data path {path!r}: {name}", f"--data.init_args.{name} null holds out no class"
    for part, hint in (("train", "label_column"), ("test", "test_split: null")):
        split = splits.get(part)
        if split is not None and not split.has_labels:
            none = f"needs labels, but the split {split.split!r} has none"
            raise ClassError(f"{where} {none}; set {hint}, or {way}")
    labels = np.concatenate([split.labels for split in splits.values()])
    known = np.unique(labels[labels >= 0]).tolist()
    named = {names[n]: n for n in known if n in names}
    digits = {str(int(name)): n for name, n in named.items() if name.isdecimal()}  # "007" counts as 7
    numbers = {str(n): n for n in known} | digits | named
    chosen = wanted if isinstance(wanted, list) else [wanted]
    for label in chosen:
        if str(label) not in numbers:
            listed = ", ".join(class_words(n, names, "{} ({})") for n in known[:50])
            raise ClassError(f"{where} {label} does not exist; the labels are {listed}; {way}")
    found = {numbers[str(label)] for label in chosen}
    held_out = [n for n in known if (n in found) != of_normal]
    if not held_out:
        raise UserError(f"{where} {wanted}: the data have no other class; {way}")
    return held_out


def by_number(labels: Any) -> bool:
    """Return whether a class is given by number, which may be another class in other data."""
    return any(isinstance(label, int) for label in (labels if isinstance(labels, list) else [labels]))


def class_words(number: int, names: Mapping[int, str], both: str = "{} ({!r})") -> str:
    """Return a class in words: its number, and its name if it differs."""
    name = names.get(number, str(number))
    return str(number) if name == str(number) else one_line(both.format(number, name))


class ImageData(SplitData):
    """A data module with batches ``{"x", "label", "index"}`` of images.

    With a held-out label they also have ``"anomaly"``; training batches with flips have ``"flipped"``,
    ``(B,)`` of ``bool``.

    ``x`` is ``(B, C, H, W)`` in [-1, 1] on the device. After :meth:`setup`, ``image_shape`` is ``(C, H, W)``;
    ``train``, ``validation`` and ``test`` are :class:`~lebm.data.rows.ImageRows` or ``None``;
    ``class_counts`` counts the labels of each split, and ``label_names`` names the classes.

    Args:
        path: a Hub name such as ``ylecun/mnist``, a local folder of parquet files in that layout, a folder of
            images, or ``embedded:mnist``.
        config_name: configuration (subset) of the data set, such as ``cropped_digits`` of SVHN.
        revision: revision of a Hub data set; with it the content is always the same.
        image_size: side of the square images in pixels; ``null`` keeps the size of the files. An image that
            is not square is first cut to its central square.
        channels: 1 or 3; ``null`` keeps the channels of the files.
        crop: box (left, top, right, bottom) in pixels that is cut out before resizing.
        batch_size: images of a training step over all processes together, whose number must divide it.
        eval_batch_size: images of an evaluation batch; ``null`` is ``batch_size``.
        image_column: name of the image column; detected if ``null``.
        label_column: name of the label column; detected if ``null``.
        train_split: name of the split for training.
        test_split: name of the split for testing; ``null`` for none.
        validation_size: number of training images for validation, or a share of them above 0 and below 1,
            chosen by a seeded permutation. A validation split of the source is used in their place.
        held_out_label: class, or list of classes, by name or number, that is excluded from training and
            anomalous in the test set. After :meth:`setup` it is the number, or a list of numbers. Rows
            without a label are then skipped.
        normal_label: class, or list of classes, in place of ``held_out_label``; all others are held out.
        anomaly_split: protocol for a held-out label. ``lebm`` joins train and test split, trains on 80% of
            the normal images, and tests on the other 20% and all held-out images. ``official`` excludes the
            held-out class from the training split and tests on the whole test split.
        seed: seed of the permutations, of the order of training and of the flips.
        flip: whether training images are mirrored left to right with probability 0.5.
        num_workers: number of processes that read ahead; 0 is fastest for decoded images.
        limit_train: number of training images, chosen at random; ``null`` for all.
        limit_eval: number of validation images, and of test images, chosen at random; ``null`` for all.
        on_error: ``fail`` for an error on an undecodable image, ``skip`` for a warning.
        cache_dir: folder for decoded images; ``null`` is ``$LEBM_CACHE``, else ``~/.cache/lebm``.
        drop_last: whether training skips an incomplete last batch of an epoch.
        white_level: value of white in files of more than 8 bits, such as 4095 for 12 bits or 1.0 for
            floating-point numbers; ``null`` is the largest value of the format.

    Raises:
        UserError: in :meth:`setup`, if the data cannot be read or do not fit the arguments.
        ValueError: for arguments out of range.

    Example:
        >>> from lebm.data import ImageData
        >>> data = ImageData("embedded:mnist", train_split="validation", batch_size=50)  # a small split
        >>> data.setup()
        >>> data.image_shape, len(data.train), len(data.train_dataloader())
        ((1, 28, 28), 1000, 20)
    """

    described = (
        *("path", "batch_size", "flip", "drop_last", "held_out_label"),
        *("validation_size", "seed", "limit_train", "limit_eval"),
    )
    ordering = ("sizes", "batch_size", "seed", "flip", "drop_last")

    train: ImageRows
    validation: ImageRows | None
    test: ImageRows | None
    held_out_label: Any  # as given; after setup a number, or a list of numbers

    def __init__(
        self,
        path: str,
        config_name: str | None = None,
        revision: str | None = None,
        image_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        crop: tuple[int, int, int, int] | None = None,
        batch_size: int = 100,
        eval_batch_size: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        train_split: str = "train",
        test_split: str | None = "test",
        validation_size: int | float = 0,
        held_out_label: int | str | list[int | str] | None = None,
        normal_label: int | str | list[int | str] | None = None,
        anomaly_split: Literal["lebm", "official"] = "lebm",
        seed: int = 0,
        flip: bool = False,
        num_workers: int = 0,
        limit_train: int | None = None,
        limit_eval: int | None = None,
        on_error: Literal["fail", "skip"] = "fail",
        cache_dir: str | None = None,
        drop_last: bool = True,
        white_level: float | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        at_least(1, limit_train=limit_train, limit_eval=limit_eval)
        check_size("validation_size", validation_size)
        at_least(0, num_workers=num_workers)
        self._decoding = Decoding(image_size, channels, crop, white_level)  # rejects impossible values
        self.path, self.train_split, self.test_split = path, train_split, test_split
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        if held_out_label not in (None, []) and normal_label not in (None, []):
            raise ValueError("held_out_label and normal_label exclude each other; set one of them to null")
        self.held_out_label, self.normal_label = held_out_label, normal_label
        self.seed, self.flip, self.drop_last, self.num_workers = seed, flip, drop_last, num_workers
        self._where: Any = {"config_name": config_name, "revision": revision, "cache_dir": cache_dir}
        self._how: Any = {"image_column": image_column, "label_column": label_column, "on_error": on_error}
        self._how |= asdict(self._decoding)
        self.validation_size, self.anomaly_split = validation_size, anomaly_split
        self.limit_train, self.limit_eval = limit_train, limit_eval

    # Reading

    def prepare_data(self) -> None:
        """Decode the images that are not in the cache; Lightning calls this in one process per machine."""
        self._sources()

    def _sources(self) -> dict[str, CachedImages]:
        """Return the decoded splits: ``train``, and if present ``validation`` and ``test``."""
        known = split_names(self.path, **self._where)
        names = chosen_splits(self.path, known, self.train_split, self.test_split)
        how = {**self._where, **self._how}
        opened = {part: open_images(self.path, name, **how) for part, name in names.items()}
        shapes = {cached.split: cached.images.shape[1:] for cached in opened.values()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            problem = f"images differ between splits ({listed}); set image_size and channels"
            raise data_error(self.path, problem)
        return opened

    def setup(self, stage: str | None = None) -> None:
        """Open the data and make the splits; a second call does nothing."""
        if self._used is not None:
            return
        sources = self._sources()
        names = next((split.label_names for split in sources.values() if split.label_names), [])
        self.label_names = dict(enumerate(names))
        wanted = self.held_out_label, self.normal_label
        held_out = held_out_classes(self.path, sources, self.label_names, *wanted)
        self.held_out_label = held_out[0] if len(held_out) == 1 else held_out or None
        self.unlabelled = sum((split.labels < 0).sum() for split in sources.values()) if held_out else 0
        splits = self._splits(sources, held_out, self.anomaly_split)
        self.train, self.validation, self.test = splits["train"], splits.get("validation"), splits.get("test")
        self.image_shape = self.train.image_shape
        self.class_counts = {
            name: dict(sorted(Counter(split.labels.tolist()).items())) if sources["train"].has_labels else {}
            for name, split in splits.items()
        }
        self._used = {
            **{name: self._where[name] for name in ("config_name", "revision")},
            **asdict(self._decoding),
            "image_shape": list(self.image_shape),
            "source_splits": {part: split.split for part, split in sources.items()},
            "class_counts": {
                part: {str(label): n for label, n in own.items()} for part, own in self.class_counts.items()
            },
            "label_names": {str(label): name for label, name in self.label_names.items()} or None,
            "skipped": sum(len(split.skipped) for split in sources.values()),
            "anomaly_split": self.anomaly_split if held_out else None,
        }
        if self.test is not None and self.test.anomaly is not None:
            self._used["anomaly_base_rate"] = int(self.test.anomaly.sum()) / len(self.test)

    def _splits(
        self, sources: dict[str, CachedImages], held_out: Sequence[int], protocol: str
    ) -> dict[str, ImageRows]:
        """Return the splits that have rows, by name."""
        own = sources.get("validation")
        joined = [sources[part] for part in ("train", "test") if part in sources]
        images, labels = [source.images for source in joined], [source.labels for source in joined]
        every = np.concatenate(labels)
        rows = held_out_rows(every, len(labels[0]), held_out, protocol, self.seed)
        if own is not None:
            rows["validation"] = np.flatnonzero(is_normal(own.labels, held_out))
        without = f" without label {', '.join(map(str, held_out))}" if held_out else ""
        other = {} if own is None else {"validation": ([own.images], own.labels)}
        return {
            part: ImageRows(*other.get(part, (images, every)), kept, held_out)
            for part, kept in self._divided(rows, self.seed + bool(held_out), without).items()
        }

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        if split is None and self.test_split in split_names(self.path, **self._where):
            split = self.test_split
        found = open_images(self.path, split, **self._where, **self._how)
        files, labels = found.file_names(), found.labels.tolist()
        known = {} if files is None else {"path": files}
        if found.has_labels:
            known["label"] = labels
        if found.label_names is not None:
            names = [*found.label_names, ""]  # the last name is for the label -1
            known["class_name"] = [names[label] for label in labels]
        rows = ImageRows([found.images], found.labels, np.arange(len(found)))
        return Rows(rows, f"{self.path} ({found.split})", np.arange(len(found))[:limit], known)

    def rows_of(self, part: str) -> Rows:
        found, sources = super().rows_of(part), self._sources()
        joined = [sources[name] for name in ("train", "test") if name in sources]
        own = [sources["validation"]] if part == "validation" and "validation" in sources else joined
        files = [source.file_names() for source in own]
        if None in files:
            return found
        every = [name for names in files for name in names or ()]
        return replace(found, known={"path": [every[row] for row in found.split.rows]})  # type: ignore[union-attr]

    def test_of(self, protocol: str) -> ImageRows | None:
        """Return the test split under another protocol of the held-out classes, see ``anomaly_split``."""
        self.setup()
        return self._splits(self._sources(), self.train.held_out, protocol).get("test")

    def notes(self) -> list[str]:
        """Return notes on the held-out classes, the place of their images, and rows without a label."""
        self.setup()
        held_out = self.train.held_out
        if not held_out:
            return []
        listed = ", ".join(class_words(label, self.label_names) for label in held_out[:10])
        listed += ", ..." if len(held_out) > 10 else ""
        total = len(self.train) + (0 if self.validation is None else len(self.validation))
        anomalous = None if self.test is None else self.test.anomaly
        name = "held_out_label" if self.normal_label in (None, []) else "normal_label"
        where = f"{0 if anomalous is None else int(anomalous.sum())} images in the test split"
        way = f"none of {total} for training (--data.init_args.{name} null trains on all classes)"
        said = [f"held out: class {listed}; {where}, {way}"]
        if self.unlabelled:
            said.append(f"{self.unlabelled} images without a label are skipped: their class is unknown")
        return said

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Flip training images and scale all to [-1, 1], on the device."""
        x = batch["x"]
        if x.dtype != torch.uint8:
            return batch
        if self.flip and self.trainer is not None and self.trainer.training:
            heads = coin_flips(self.seed, self.trainer.current_epoch, batch["index"])
            x = torch.where(heads[:, None, None, None], x.flip(-1), x)
            batch = {**batch, "flipped": heads}
        return {**batch, "x": to_unit_range(x)}
