"""Arrays as data: vectors or images from NumPy files or Python, and points in the plane."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lebm.data.module import SplitData
from lebm.data.rows import ImageRows, Rows, to_unit_range
from lebm.data.splits import PARTS, check_size, existing_split
from lebm.errors import UserError, at_least, data_error
from lebm.samplers.noise import keyed_seed

_NAMES = {
    **{"x": "train", "x_train": "train", "x_val": "validation", "x_valid": "validation", "x_test": "test"},
    **{"y": "train_label", "y_train": "train_label", "label": "train_label", "labels": "train_label"},
    **{"y_val": "validation_label", "y_valid": "validation_label", "y_test": "test_label"},
}
"""Other names of the arrays, as in the files of Keras."""
SHAPES = ("grid", "moons", "rings", "spiral")
_IDX = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


class ArrayData(SplitData):
    """A data module with batches ``{"x", "label", "index"}`` of arrays in memory.

    ``x`` is ``float32``, ``(B, d)`` or ``(B, C, H, W)``. Images are ``uint8``, which are scaled to [-1, 1],
    or numbers in [-1, 1]; grey ones may be ``(N, H, W)``. Vectors do not change. Rows without labels have the
    label -1.

    Args:
        path: a ``.npz`` file with the array ``train``. It may also have ``validation``, ``test`` and the
            whole-numbered labels ``train_label``, ``validation_label`` and ``test_label``. The names ``x``,
            ``y``, ``x_train``, ``y_train``, ``x_test``, ... mean the same, and arrays that are called
            ``*name`` or ``*names`` are left out. Or a ``.npy`` file, which is ``train`` alone. Or an IDX file
            such as ``train-images-idx3-ubyte.gz``, with labels and test images beside it.
        batch_size: rows of a training step over all processes together, whose number must divide it.
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
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_size("validation_size", validation_size)
        check_size("test_size", test_size)
        self.path, self.seed = path, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.validation_size, self.test_size = validation_size, test_size
        self._arrays: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, Any], **arguments: Any) -> ArrayData:
        """Return a data module of tensors or arrays with the names of the ``.npz`` file."""
        data = cls("arrays", **arguments)
        data._arrays = arrays
        return data

    def setup(self, stage: str | None = None) -> None:
        """Read the arrays and make the splits; a second call does nothing."""
        if self._used is not None:
            return
        given = self._read() if self._arrays is None else self._arrays
        named = {_NAMES.get(name, name): value for name, value in given.items()}
        arrays = {name: np.asarray(named[name]) for name in named if not name.endswith(("name", "names"))}
        known = [*PARTS, *(f"{part}_label" for part in PARTS)]
        if "train" not in arrays or not set(known).issuperset(arrays):
            expected = f"expected train, and optionally {', '.join(known[1:])}"
            raise data_error(self.path, f"holds {', '.join(arrays)}; {expected}")
        sources = {part: self._array(arrays, part) for part in PARTS if part in arrays}
        shapes = {part: source.image_shape for part, source in sources.items()}
        if len(set(shapes.values())) > 1:
            raise data_error(self.path, f"rows differ between splits ({shapes})")
        rows = self._divided({part: source.rows for part, source in sources.items()}, self.seed + 1)
        splits = {part: sources.get(part, sources["train"]).subset(own) for part, own in rows.items()}
        self.train, self.validation, self.test = (splits.get(part) for part in PARTS)
        self._used = {"shape": list(shapes["train"])}

    def _read(self) -> Mapping[str, Any]:
        file = Path(self.path)
        if not file.exists():
            raise data_error(self.path, "no such file")
        try:
            if not file.name.endswith((".npy", ".npz")):
                return _idx_files(file)
            found = np.load(file, allow_pickle=False)
            return {"train": found} if isinstance(found, np.ndarray) else dict(found)
        except Exception as error:  # many kinds of errors for damaged files
            raise data_error(self.path, "not a .npy, .npz or IDX file of plain numbers") from error

    def _array(self, arrays: Mapping[str, np.ndarray], name: str) -> ImageRows:
        where, values = f"data path {self.path!r}, array {name!r}", arrays[name]
        if values.ndim == 3:
            values = values[:, None]
        if values.ndim == 4 and values.shape[1] not in (1, 3) and values.shape[3] in (1, 3):
            values = values.transpose(0, 3, 1, 2)  # channels last, as of Keras
        if values.ndim not in (2, 4) or values.dtype.kind not in "fiub" or not values.size:
            expected = "must hold numbers of shape (N, d), (N, H, W) or (N, C, H, W)"
            raise UserError(f"{where}: {expected}, not {values.dtype} of shape {values.shape}")
        if values.ndim == 4 and values.dtype == np.uint8:
            x = to_unit_range(torch.from_numpy(values))
        else:
            x = torch.from_numpy(values.astype(np.float32))
        if not torch.isfinite(x).all() or (values.ndim == 4 and x.abs().max() > 1):
            known = "must hold finite numbers; images in [-1, 1] or uint8, latents of shape (N, d)"
            raise UserError(f"{where}: {known}")
        label = arrays.get(f"{name}_label", np.full(len(x), -1))
        if label.shape != x.shape[:1] or label.dtype.kind not in "iub":
            found = f"its labels are {label.dtype} of shape {label.shape}"
            raise UserError(f"{where}: {found}, not {len(x)} whole numbers")
        return ImageRows([x.numpy()], label.astype(np.int64), np.arange(len(x)))

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        self.setup()
        known = [part for part in PARTS if getattr(self, part) is not None]
        split = existing_split(self.path, known, split)
        rows = getattr(self, split)
        labels = {"label": rows.labels.tolist()} if (rows.labels >= 0).any() else {}
        return Rows(rows, f"{self.path} ({split})", np.arange(len(rows))[:limit], labels)


def _idx_files(file: Path) -> dict[str, np.ndarray]:
    """Return the images of an IDX file, and the labels and the test split beside it, as for MNIST."""
    roles: dict[str, str] = {}
    for part, images in (("train", file.name), ("test", file.name.replace("train-", "t10k-"))):
        roles.setdefault(images, part)
        roles.setdefault(images.replace("images", "labels").replace("idx3", "idx1"), f"{part}_label")
    found = {}
    for name, role in roles.items():
        if (file := file.with_name(name)).exists():
            content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            kind, axes = _IDX[content[2]], content[3]
            values = np.frombuffer(content, kind, -1, 4 + 4 * axes).astype(kind.strip(">"))
            found[role] = values.reshape(np.frombuffer(content, ">i4", axes, 4))
    return found


def plane_samples(shape: str, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points ``(n, 2)`` of a density in the plane, and their pieces ``(n,)``.

    The points are within about 3 of the origin. The piece of a point is the number of its ring, moon, arm or
    cell.

    Args:
        shape: ``"rings"``, ``"moons"``, ``"spiral"`` or ``"grid"``.
        n: number of points, at least 1.
        seed: seed that determines the points.

    Raises:
        ValueError: for another shape, or fewer than one point.

    Example:
        >>> from lebm.data import plane_samples
        >>> points, pieces = plane_samples("rings", n=1000)
        >>> points.shape, pieces.unique().tolist()
        (torch.Size([1000, 2]), [0, 1])
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}; choose one of {', '.join(SHAPES)}")
    at_least(1, n=n)
    generator = torch.Generator().manual_seed(seed)
    pieces = torch.randint(9 if shape == "grid" else 2, (n,), generator=generator)
    if shape == "grid":
        cells = torch.stack([pieces % 3, pieces.div(3, rounding_mode="floor")], dim=1).float() - 1
        return 1.6 * cells + 0.12 * torch.randn(n, 2, generator=generator), pieces
    turn, side = torch.rand(n, generator=generator), 1.0 - 2.0 * pieces
    if shape == "rings":
        angle = 2 * math.pi * turn
        radius = 1.0 + 1.2 * pieces + 0.08 * torch.randn(n, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), pieces
    if shape == "moons":
        angle, shift = math.pi * turn, 1 - side
        x, y = side * angle.cos() + 0.5 * shift - 0.5, side * angle.sin() + 0.25 * shift
        points, noise = 1.4 * torch.stack([x, y], dim=1) + torch.tensor([0.0, -0.35]), 0.1
    else:
        angle = 3 * math.pi * turn.sqrt()
        radius = 0.25 * angle * side
        points, noise = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), 0.08
    return points + noise * torch.randn(n, 2, generator=generator), pieces


class PlaneData(ArrayData):
    """A data module of points in the plane; ``x`` is ``(B, 2)`` and ``label`` is the piece of each point.

    Args:
        shape: ``rings``, ``moons``, ``spiral`` or ``grid``.
        n_train: number of training points.
        n_eval: number of validation points, and of test points.
        batch_size: points of a training step over all processes together, whose number must divide it.
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
        at_least(1, n_train=n_train, n_eval=n_eval)
        super().__init__(shape, batch_size, eval_batch_size, seed=seed)
        self._sizes = {"train": n_train, "validation": n_eval, "test": n_eval}

    def _read(self) -> dict[str, Tensor]:
        arrays: dict[str, Tensor] = {}
        for part, n in self._sizes.items():
            points, pieces = plane_samples(self.path, n, keyed_seed(self.seed, part))
            arrays |= {part: points, f"{part}_label": pieces}
        return arrays
