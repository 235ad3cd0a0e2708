"""The base of the data modules: from splits to loaders that are the same on any number of processes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lebm.component import Component
from lebm.data.loader import BatchLoader, ShardedBatchSampler
from lebm.data.rows import Rows
from lebm.errors import UserError


class SplitData(LightningDataModule, Component):
    """Base class of the data modules with a training, a validation and a test split.

    :meth:`setup` of a derived class sets ``train``, ``validation`` and ``test``. It also sets ``_used`` to a
    description of the data in plain values: at least ``sizes``, ``batch_size``, ``seed`` and the other names
    in :attr:`ordering`.

    Example:
        >>> from lebm.data import ArrayData, SplitData
        >>> issubclass(ArrayData, SplitData), SplitData.ordering
        (True, ('sizes', 'batch_size', 'seed'))
    """

    noun = "images"
    ordering: tuple[str, ...] = ("sizes", "batch_size", "seed")
    test_hint = "name it with test_split"

    path: str
    batch_size: int
    eval_batch_size: int
    seed: int
    num_workers: int = 0
    drop_last: bool = True
    foreign: bool = False  # whether a run that is evaluated on these data was trained on others
    train: Any
    validation: Any
    test: Any
    _used: dict[str, Any] | None = None

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        """The rows of one split of the source in their order, with labels and names, for the verbs.

        Args:
            split: name of the split; the test split if ``None``.
            limit: use only the first ``limit`` rows.

        Raises:
            UserError: if there is no such split, or a class of one's own does not define this.
        """
        raise UserError(
            f"{type(self).__name__} does not list its rows: define rows(split, limit) in it, or name other"
            " data with --data"
        )

    def rows_of(self, part: str) -> Rows:
        """The rows of a split of this module, ``train``, ``validation`` or ``test``.

        Raises:
            UserError: if there is no such split.
        """
        self.setup()  # type: ignore[call-arg]
        rows = getattr(self, part)
        if rows is None:
            raise UserError(
                f"data path {self.path!r}: the run has no {part} split; train one with"
                f" --data.init_args.{part}_size 0.1"
            )
        return Rows(rows, f"{self.path} ({part})", np.arange(len(rows)))

    def describe_split(self) -> dict[str, Any]:
        """The data of the run as plain values, for a summary: path, splits, sizes, seed and protocol."""
        self.setup()  # type: ignore[call-arg]
        assert self._used is not None
        return {**copy.deepcopy(self._used), "batch_size": self.batch_size}  # Lightning's tuner may change it

    __str__ = Component.__repr__  # that of Lightning needs data sets of PyTorch's DataLoader

    def notes(self) -> list[str]:
        """What a user should know about the splits, one sentence per entry; the command line prints them."""
        return []

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """The settings that decide the order of the data.

        A resumed run compares them with its own settings. The position in the data is stored by the trainer.
        """
        used = self.describe_split()
        order = {name: used[name] for name in self.ordering}
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            order["limit_train_batches"] = self.trainer.limit_train_batches  # type: ignore[attr-defined]
        return order

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn if the interrupted run read its data in another way."""
        now = self.state_dict()
        changed = [
            f"{name} {state_dict[name]} -> {now[name]}"
            for name in now
            if state_dict.get(name, now[name]) != now[name]
        ]
        if changed:
            rank_zero_warn(
                "the checkpoint was made with other data, so the run will not continue exactly:"
                f" {', '.join(changed)}"
            )

    # Loading

    def _processes(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _position(self) -> tuple[int, int]:
        """Epoch and batch of the next training step, from the counters that Lightning saves and restores."""
        if self.trainer is None or not self.trainer.training:
            return 0, 0
        # overfit_batches repeats the first batches of epoch 0
        epoch = 0 if self.trainer.overfit_batches else self.trainer.current_epoch  # type: ignore[attr-defined]
        return epoch, self.trainer.fit_loop.batch_idx + 1

    def _training_sampler(self, dataset: Any, **sharing: int) -> ShardedBatchSampler:
        return ShardedBatchSampler(
            len(dataset), self.batch_size, shuffle=True, drop_last=self.drop_last, **sharing
        )

    def _loader(self, dataset: Any, training: bool = False) -> BatchLoader:
        rank, processes = self._processes()
        sharing = {"rank": rank, "world_size": processes}
        if training:
            sampler = self._training_sampler(dataset, **sharing, seed=self.seed)
        else:
            sampler = ShardedBatchSampler(len(dataset), max(self.eval_batch_size, processes), **sharing)  # type: ignore[arg-type]
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(dataset, sampler, self._position if training else None, self.num_workers, pin)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of ``batch_size`` rows over all processes; the last may be smaller.

        ``drop_last`` leaves out an incomplete last batch. If several processes cannot share that batch
        evenly, its rows do not weigh the same in the mean of their gradients.

        Raises:
            UserError: if the processes cannot share a batch evenly, or there is not one whole batch.
        """
        _, processes = self._processes()
        if self.batch_size % processes:
            raise UserError(
                f"batch_size {self.batch_size} is over all processes and cannot be shared evenly by"
                f" {processes}"
            )
        self.check_batch_size()
        return self._loader(self.train, training=True)

    def check_batch_size(self) -> None:
        """Refuse a training split that does not fill one batch; :meth:`setup` must have been called."""
        if self.batch_size > len(self.train):
            raise UserError(
                f"batch_size {self.batch_size} is larger than the {len(self.train)} training {self.noun} of"
                f" {self.path!r}; choose at most --data.init_args.batch_size {len(self.train)}"
            )

    def evaluation_dataloader(self, dataset: Any) -> BatchLoader:
        """All rows of a split in order, for metrics of a whole split; the split may be the training split.

        Raises:
            UserError: if there are fewer rows than processes.
        """
        _, processes = self._processes()
        if len(dataset) < processes:
            raise UserError(
                f"{len(dataset)} {self.noun} of {self.path!r} cannot be evaluated by {processes} processes"
            )
        return self._loader(dataset)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The validation split in order.

        Without a validation split it is an empty list, and Lightning then skips validation.
        """
        return [] if self.validation is None else self.evaluation_dataloader(self.validation)

    def test_dataloader(self) -> BatchLoader:
        """The test split in order.

        Raises:
            UserError: if there is no test split.
        """
        if self.test is None:
            raise UserError(f"data path {self.path!r}: there is no test split; {self.test_hint}")
        return self.evaluation_dataloader(self.test)

    def predict_dataloader(self) -> BatchLoader:
        """The test split in order, as :meth:`test_dataloader`."""
        return self.test_dataloader()
