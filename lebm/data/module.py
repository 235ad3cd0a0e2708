"""Base of the data modules, whose batches are the same for any number of processes."""

import copy
import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lebm.component import Component
from lebm.data.loader import BatchLoader, ShardedBatchSampler
from lebm.data.rows import Rows
from lebm.data.splits import PARTS, limited, size_in_rows
from lebm.errors import UserError, UserNotice, data_error


class SplitData(LightningDataModule, Component):
    """The base class of data modules with a training, a validation and a test split.

    :meth:`setup` of a derived class sets ``train``, ``validation`` and ``test``, and ``_used``, further facts
    about the data in plain values.

    Attributes:
        noun: what the rows are, for messages.
        described: attributes that :meth:`describe_split` reports.
        ordering: the facts that determine the order of the data.

    Example:
        >>> from lebm.data import ArrayData, SplitData
        >>> issubclass(ArrayData, SplitData), SplitData.ordering
        (True, ('sizes', 'batch_size', 'seed'))
    """

    noun = "images"
    described: tuple[str, ...] = ("path", "batch_size", "seed")
    ordering: tuple[str, ...] = ("sizes", "batch_size", "seed")
    test_hint = "name it with test_split"

    path: str
    batch_size: int
    eval_batch_size: int
    validation_size: int | float = 0
    test_size: int | float = 0
    limit_train: int | None = None
    limit_eval: int | None = None
    seed: int
    num_workers: int = 0
    drop_last: bool = True
    foreign: bool = False  # whether an evaluated run was trained on other data
    train: Any
    validation: Any
    test: Any
    _used: dict[str, Any] | None = None

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        """Return the rows of one split of the source in order, with labels and names, for the verbs.

        Args:
            split: name of the split; the test split if ``None``.
            limit: number of rows to use, from the first.

        Raises:
            UserError: if the split does not exist, or a derived class does not define this method.
        """
        raise UserError(
            f"{type(self).__name__} does not list its rows; define rows(split, limit) in it, or name other"
            " data with --data"
        )

    def rows_of(self, part: str) -> Rows:
        """Return the rows of the split ``train``, ``validation`` or ``test`` of this module.

        Raises:
            UserError: if the split does not exist.
        """
        self.setup()  # type: ignore[call-arg]
        rows = getattr(self, part)
        if rows is None:
            way = f"train one with --data.init_args.{part}_size 0.1"
            raise data_error(self.path, f"the run has no {part} split; {way}")
        return Rows(rows, f"{self.path} ({part})", np.arange(len(rows)))

    def describe_split(self) -> dict[str, Any]:
        """Return the data of the run as plain values: path, splits, sizes, seed and protocol."""
        self.setup()  # type: ignore[call-arg]
        splits = {part: getattr(self, part) for part in PARTS}
        sizes = {part: len(split) for part, split in splits.items() if split is not None}
        known = {name: getattr(self, name) for name in self.described}
        return copy.deepcopy({**known, "sizes": sizes, **(self._used or {})})

    __str__ = Component.__repr__  # Lightning's needs data sets of a DataLoader

    def notes(self) -> list[str]:
        """Return notes on the splits, one sentence per entry, which the command line prints."""
        return []

    def _divided(
        self, rows: dict[str, np.ndarray], validation_seed: int, without: str = ""
    ) -> dict[str, np.ndarray]:
        """Return the rows of each split: what the source lacks is set aside from ``train``, and limits apply.

        ``validation_seed`` permutes the rows before some are taken for validation, and ``without`` tells in
        the error what the training rows lack.
        """
        count = len(rows["train"])
        sizes = {"test": (self.test_size, self.seed), "validation": (self.validation_size, validation_seed)}
        missing = {part: given for part, given in sizes.items() if given[0] and part not in rows}
        for part, (size, seed) in missing.items():
            own = limited(rows["train"], size_in_rows(size, count), seed)
            rows = {**rows, "train": np.setdiff1d(rows["train"], own), part: own}
        if not len(rows["train"]):
            listed = "".join(f"{part}_size {size}, " for part, (size, _) in missing.items())
            raise data_error(
                self.path,
                f"no training {self.noun} are left ({listed}of {count} {self.noun}{without}); use"
                f" --data.init_args.{next(iter(missing), 'validation')}_size 0.1 for a tenth",
            )
        limits = {"train": self.limit_train, "validation": self.limit_eval, "test": self.limit_eval}
        return {
            part: limited(rows[part], limits[part], self.seed) for part in PARTS if len(rows.get(part, ()))
        }

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """Return the settings that determine the order of the data, and a digest of 16 training rows.

        A resumed run compares them with its own settings. The trainer stores the position in the data.
        """
        used = self.describe_split()
        order = {name: used[name] for name in self.ordering}
        if hasattr(self.train, "__getitems__"):
            order["digest"] = self._digest
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            order["limit_train_batches"] = self.trainer.limit_train_batches  # type: ignore[attr-defined]
        return order

    @cached_property
    def _digest(self) -> str:
        """Digest of 16 training rows, read once although every checkpoint has it."""
        some = self.train.__getitems__(np.linspace(0, len(self.train) - 1, 16, dtype=int).tolist())["x"]
        return hashlib.sha256(some.contiguous().numpy().tobytes()).hexdigest()[:8]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn if the interrupted run read its data in another way."""
        now = self.state_dict()
        if changed := [name for name in now if state_dict.get(name, now[name]) != now[name]]:
            listed = ", ".join(f"{name} {state_dict[name]} -> {now[name]}" for name in changed)
            problem = "the checkpoint was written with other data, so the run will not continue exactly"
            rank_zero_warn(f"{problem}: {listed}", category=UserNotice)

    # Loading

    def _sharing(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _position(self) -> tuple[int, int]:
        """Return epoch and batch of the next step, from counters that Lightning saves and restores."""
        if self.trainer is None or not self.trainer.training:
            return 0, 0
        # overfit_batches repeats the first batches of epoch 0
        epoch = 0 if self.trainer.overfit_batches else self.trainer.current_epoch  # type: ignore[attr-defined]
        return epoch, self.trainer.fit_loop.batch_idx + 1

    def _training_sampler(self, **sharing: int) -> ShardedBatchSampler:
        """Return the sampler of ``train``, whose order depends on ``seed`` and epoch."""
        order: Any = {"shuffle": True, "drop_last": self.drop_last, "seed": self.seed, **sharing}
        return ShardedBatchSampler(len(self.train), self.batch_size, **order)

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of ``batch_size`` rows over all processes.

        Without ``drop_last`` the last batch may be smaller. If the processes cannot share it evenly, its rows
        have unequal weights in the mean of their gradients.

        Raises:
            UserError: if the processes cannot share a batch evenly, or no batch is full.
        """
        sharing = self._sharing()
        if self.batch_size % sharing["world_size"]:
            raise UserError(
                f"batch_size {self.batch_size} is over all processes, and must be a multiple of their number,"
                f" {sharing['world_size']}"
            )
        self.check_batch_size()
        return BatchLoader(self.train, self._training_sampler(**sharing), self._position, self.num_workers)

    def check_batch_size(self) -> None:
        """Reject a training split that does not fill one batch; :meth:`setup` must have been called.

        Raises:
            UserError: if ``batch_size`` is larger than the training split.
        """
        if self.batch_size > len(self.train):
            raise UserError(
                f"batch_size {self.batch_size} is larger than the {len(self.train)} training {self.noun} of"
                f" {self.path!r}; use at most --data.init_args.batch_size {len(self.train)}"
            )

    def evaluation_dataloader(self, dataset: Any) -> BatchLoader:
        """Return all rows of a split in order, for metrics of a whole split, also of the training split.

        Raises:
            UserError: if there are fewer rows than processes.
        """
        sharing = self._sharing()
        rows, processes = len(dataset), sharing["world_size"]
        if rows < processes:
            raise data_error(self.path, f"{rows} {self.noun} cannot be evaluated by {processes} processes")
        sampler = ShardedBatchSampler(rows, max(self.eval_batch_size, processes), **sharing)  # type: ignore[arg-type]
        return BatchLoader(dataset, sampler, num_workers=self.num_workers)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation split in order, or an empty list without one, which skips validation."""
        return [] if self.validation is None else self.evaluation_dataloader(self.validation)

    def test_dataloader(self) -> BatchLoader:
        """Return the test split in order.

        Raises:
            UserError: if the test split does not exist.
        """
        if self.test is None:
            raise data_error(self.path, f"there is no test split; {self.test_hint}")
        return self.evaluation_dataloader(self.test)

    def predict_dataloader(self) -> BatchLoader:
        """Return the test split in order, as :meth:`test_dataloader`."""
        return self.test_dataloader()
