"""Survey of a data set without decoding, for recipes fitted to it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lebm.data.arrays import ArrayData
from lebm.data.cache import columns_of, labels_of
from lebm.data.decoding import GREY_MODES, content_of, header
from lebm.data.sources import Reader, find_source, located, reading
from lebm.data.splits import VALIDATION_SPLITS
from lebm.errors import data_error, one_line

LOOKED_AT = 1000  # largest number of images whose headers are read, spread over all images
ARRAYS = (".npy", ".npz", "-ubyte", "-ubyte.gz", ".idx", ".idx.gz")


@dataclass(frozen=True)
class Survey:
    """The facts about a data set that a recipe needs.

    Attributes:
        count: number of training rows, including rows for validation.
        shape: channels, height and width of the smallest image above the smallest twentieth; ``(d,)`` for
            vectors.
        classes: names of the classes, or their numbers as strings; empty without labels.
        normal: the only class of the training split, if the test split has other classes too, which are
            probably the anomalies.
    """

    path: str
    is_array: bool
    count: int
    shape: tuple[int, ...]
    same_size: bool = True
    classes: list[str] = field(default_factory=list)
    train_split: str = "train"
    test_split: str | None = None
    has_validation: bool = False
    normal: str | None = None

    @property
    def line(self) -> str:
        """The facts in one line."""
        if len(self.shape) == 1:
            kind = f"vectors of {self.shape[0]} numbers"
        else:
            channels, height, width = self.shape
            size = f"{width} x {height} pixels" + ("" if self.same_size else " or more")
            kind = f"images of {size}, {'grey' if channels == 1 else 'in colour'}"
        listed = one_line(", ".join(self.classes[:10])) + (", ..." if len(self.classes) > 10 else "")
        return (
            f"{self.count} training {kind}, "
            + (f"{len(self.classes)} classes ({listed})" if self.classes else "no labels")
            + (", a validation split" if self.has_validation else "")
            + (f", a test split {self.test_split!r}" if self.test_split else ", no test split")
        )


def survey(path: str) -> Survey:
    """Return the facts about images, or about a file of arrays as for :class:`~lebm.data.ArrayData`."""
    if not path.lower().endswith(ARRAYS):
        return _of_images(path)
    data = ArrayData(path, batch_size=1)
    data.setup()
    return Survey(
        path=located(path),
        is_array=True,
        count=len(data.train),
        shape=data.train.image_shape,
        classes=[str(label) for label in data.train.labels.unique().tolist() if label >= 0],
        test_split=None if data.test is None else "test",
        has_validation=data.validation is not None,
    )


def _of_images(path: str) -> Survey:
    source = find_source(path)
    with reading(source) as reader:
        from datasets import Image

        splits = reader.split_names()
        train = "train" if "train" in splits else splits[0]
        test = "test" if "test" in splits and train != "test" else None
        rows = reader.split(train)
        image_column, label_column = columns_of(source, rows.features)
        trained, names = _classes(reader, rows, train, label_column)
        tested = _classes(reader, reader.split(test), test, label_column)[0] if test else []
        n = min(LOOKED_AT, len(rows))
        undecoded = rows.select_columns([image_column]).cast_column(image_column, Image(decode=False))
        items = undecoded.select([row * len(rows) // n for row in range(n)])[image_column]
        found = [known for item in items if (known := header(content_of(item))) is not None]
    if not found:
        raise data_error(path, f"none of {n} images can be opened")
    sizes = Counter(size for size, _ in found)
    # Without the smallest twentieth, so one tiny file does not determine the networks.
    width, height = sorted(sizes.elements(), key=min)[sizes.total() // 20]
    return Survey(
        path=located(path),
        is_array=False,
        count=len(rows),
        shape=(1 if all(mode in GREY_MODES for _, mode in found) else 3, height, width),
        same_size=len(sizes) == 1,
        classes=names,
        train_split=train,
        test_split=test,
        has_validation=any(name in splits for name in VALIDATION_SPLITS if name != train),
        normal=trained[0] if len(trained) == 1 and set(trained) < set(tested) else None,
    )


def _classes(reader: Reader, rows: Any, split: str, column: str | None) -> tuple[list[str], list[str]]:
    """Return the classes of a split and of all splits: their names, or their numbers as strings."""
    labels, names = labels_of(reader, rows, split, column if column in rows.features else None, named=False)
    present = np.unique(labels[labels >= 0]).tolist()
    found = [str(label) if names is None else names[label] for label in present]
    return found, names or found
