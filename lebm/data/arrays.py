"""Arrays as data: vectors or images from files of NumPy, or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lebm.data.dataset import ImageRows, to_unit_range
from lebm.data.module import SplitData
from lebm.data.rows import Rows
from lebm.data.splits import check_size, limited, ordinary_rows, size_in_rows
from lebm.errors import UserError

__all__ = ["ArrayData"]

SPLITS = ("train", "validation", "test")


class ArrayData(SplitData):
    """Batches ``{"x", "label", "index"}`` of arrays in memory.

    ``x`` is ``float32``, ``(B, d)`` or ``(B, C, H, W)``. Images are ``uint8``, which are scaled to [-1, 1],
    or numbers in [-1, 1]. Vectors do not change. Rows without labels have the label -1.

    Args:
        path: a ``.npz`` file with the array ``train``. It may also have ``validation``, ``test`` and the
            whole-numbered labels ``train_label``, ``validation_label`` and ``test_label``. Or a ``.npy``
            file, which is ``train`` alone.
        batch_size: rows per training step, over all processes together; the number of
            processes must divide it.
        eval_batch_size: the same for evaluation; ``null`` is ``batch_size``.
        validation_size: number of training rows for validation, or a share of them above 0 and below 1,
            chosen by a seeded permutation, if there is no array ``validation``.
        test_size: the same for testing.
        seed: seed of the permutation and of the order of training.

    Raises:
        UserError: in :meth:`setup`, if the arrays cannot be read or used; the message has one line.
        ValueError: for arguments out of range.

    Example:
        >>> import numpy as np
        >>> from lebm.data import ArrayData
        >>> data = ArrayData.of({"train": np.zeros((20, 2))}, batch_size=5, validation_size=4)
        >>> data.setup()
        >>> len(data.train), len(data.validation)
        (16, 4)
        >>> next(iter(data.train_dataloader()))["x"].shape
        torch.Size([5, 2])
    """

    noun = "rows"
    test_hint = "add an array 'test', or set test_size"
    limit_eval: int | None = None

    def __init__(
        self,
        path: str,
        batch_size: int = 100,
        eval_batch_size: int | None = None,
        validation_size: int | float = 0,
        test_size: int | float = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, eval_batch_size or 1) < 1:
            raise ValueError("batch_size and eval_batch_size must be at least 1")
        check_size("validation_size", validation_size)
        check_size("test_size", test_size)
        self.path, self.seed = path, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.carved = {"validation": validation_size, "test": test_size}
        self._arrays: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, Any], **arguments: Any) -> ArrayData:
        """From tensors or arrays with the names of the ``.npz`` file, and with the other arguments."""
        data = cls("arrays", **arguments)
        data._arrays = arrays
        return data

    def setup(self, stage: str | None = None) -> None:
        """Read the arrays and make the splits; a second call does nothing."""
        if self._used is not None:
            return
        given = self._read() if self._arrays is None else self._arrays
        arrays = {name: np.asarray(value) for name, value in given.items()}
        known = [*SPLITS, *(f"{name}_label" for name in SPLITS)]
        if "train" not in arrays or not set(known).issuperset(arrays):
            raise UserError(
                f"data path {self.path!r}: holds {', '.join(arrays)}; it must hold train, and may hold"
                f" {', '.join(known[1:])}"
            )
        splits = {name: self._array(arrays, name) for name in SPLITS if name in arrays}
        train = splits["train"]
        carved = {
            name: 0 if name in splits else size_in_rows(size, len(train))
            for name, size in self.carved.items()
        }
        if sum(carved.values()) >= len(train):
            listed = " and ".join(f"{name}_size {self.carved[name]}" for name in carved if carved[name])
            raise UserError(
                f"data path {self.path!r}: of {len(train)} training rows, {listed} are set aside and none are"
                " left; --data.init_args.validation_size 0.1 takes a tenth of them"
            )
        first = ordinary_rows(len(train), 0, carved["test"], self.seed)
        second = ordinary_rows(len(first.train), 0, carved["validation"], self.seed + 1)
        pieces = {
            "train": first.train[second.train],
            "validation": first.train[second.validation],
            "test": first.validation,
        }
        for name, piece in pieces.items():
            if len(piece):
                splits[name] = train.subset(piece)
        for name in {"validation", "test"} & splits.keys():
            places = np.arange(len(splits[name]))
            splits[name] = splits[name].subset(limited(places, self.limit_eval, self.seed))
        splits = {name: splits[name] for name in SPLITS if name in splits}
        shapes = {name: split.image_shape for name, split in splits.items()}
        if len(set(shapes.values())) > 1:
            raise UserError(f"data path {self.path!r}: rows differ between splits ({shapes})")
        self.train, self.validation, self.test = (splits.get(name) for name in SPLITS)
        self._used = {
            "path": self.path,
            "shape": list(shapes["train"]),
            "sizes": {name: len(split) for name, split in splits.items()},
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def _read(self) -> Mapping[str, Any]:
        where, file = f"data path {self.path!r}", Path(self.path)
        if not file.exists():
            raise UserError(f"{where}: no such file")
        if not file.is_file():
            raise UserError(f"{where}: not an ordinary file")
        try:
            found = np.load(file, allow_pickle=False)
            return {"train": found} if isinstance(found, np.ndarray) else dict(found)
        except MemoryError as error:
            raise UserError(f"{where}: needs more memory than there is ({error})") from error
        except Exception as error:  # NumPy and the readers of archives meet damage with errors of many kinds
            raise UserError(f"{where}: not a .npy or .npz file of plain numbers") from error

    def _array(self, arrays: Mapping[str, np.ndarray], name: str) -> ImageRows:
        where, values = f"data path {self.path!r}, array {name!r}", arrays[name]
        if values.ndim not in (2, 4) or values.dtype.kind not in "fiub" or not values.size:
            raise UserError(
                f"{where}: must hold numbers of shape (N, d) or (N, C, H, W), not {values.dtype} of shape"
                f" {values.shape}"
            )
        # torch knows neither another byte order nor numbers of more than 8 bytes
        known = np.float64 if values.dtype.itemsize > 8 else values.dtype.newbyteorder("=")
        x = torch.from_numpy(values.astype(known))
        x = to_unit_range(x) if values.ndim == 4 and values.dtype == np.uint8 else x.to(torch.float32)
        if not torch.isfinite(x).all() or (values.ndim == 4 and x.abs().max() > 1):
            raise UserError(f"{where}: must hold finite numbers, and images must be in [-1, 1] or uint8")
        label = arrays.get(f"{name}_label", np.full(len(x), -1))
        if label.shape != x.shape[:1] or label.dtype.kind not in "iub":
            raise UserError(
                f"{where}: its labels are {label.dtype} of shape {label.shape}, not {len(x)} whole numbers"
            )
        if label.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where}: a label is {label.max()}, beyond 64 bits with a sign")
        return ImageRows([x.numpy()], label.astype(np.int64), np.arange(len(x)))

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        self.setup()
        known = [name for name in SPLITS if getattr(self, name) is not None]
        split = known[-1] if split is None else split
        if split not in known:
            raise UserError(f"data path {self.path!r}: no split {split!r}; it has {', '.join(known)}")
        rows = getattr(self, split)
        labels = rows.labels.tolist() if (rows.labels >= 0).any() else None
        return Rows(rows, f"{self.path} ({split})", np.arange(len(rows))[:limit], labels)
