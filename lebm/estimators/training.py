"""Training with one scalar loss: logged scalars, random streams, clipping per network, checkpoints."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lebm import checkpoint as checkpoints
from lebm.checkpoint.rebuild import tried
from lebm.component import Component
from lebm.errors import UserError, UserNotice
from lebm.estimators.optim import AdamGroups
from lebm.estimators.processes import check_strategy
from lebm.lightning_private import accumulating, count_begun_epoch, reopen_epoch
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import gather_pools
from lebm.samplers.counter import CounterNoise
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["NoiseSource", "OneLossModule"]

NoiseSource = Literal["streams", "counter"]
_SOURCES: Mapping[str, type[Noise]] = {"streams": Noise, "counter": CounterNoise}

Method = TypeVar("Method", bound="OneLossModule")


class OneLossModule(LightningModule, Component, ABC):
    """A LightningModule that names its networks and its loss; the rest of training is here.

    Args:
        optimizer: the optimiser and its settings per network.
        seed: seed of every random stream of the method.
        noise_shards: number of parts of the global batch; the number of processes must divide it.
        noise_source: ``"streams"`` draws from torch's generators, one per noise shard. ``"counter"`` computes
            the numbers from counters, by :class:`~lebm.samplers.CounterNoise`: fewer kernels on a GPU, and
            other numbers.

    Raises:
        ValueError: for another ``noise_source``.
    """

    def __init__(
        self,
        optimizer: AdamGroups,
        seed: int = 0,
        noise_shards: int = 8,
        noise_source: NoiseSource = "streams",
    ) -> None:
        super().__init__()
        if noise_source not in _SOURCES:
            raise ValueError(f"noise_source is streams or counter, not {noise_source!r}")
        self.optimizer_settings = optimizer
        self.seed = seed
        self.noise_shards = noise_shards
        self.noise_source = noise_source
        self._notes: dict[str, Tensor] | None = None
        self._losses: tuple[Any, int] = 0.0, 0  # of the epoch: their sum and number
        self._stopping = False
        self._described: Any = None

    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """The trained networks by name; each is one parameter group."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The scalar training loss of a batch. :meth:`note` the scalars that are worth logging."""

    # Scalars for the loggers

    def updates(self) -> Iterator[None]:
        """Go through the optimiser steps of one batch: one, unless the method takes more."""
        yield

    def note(self, name: str, value: Tensor) -> None:
        """Log a scalar of this training step, detached. On a step that is not logged this does nothing.

        Args:
            name: the logged name; names that begin with ``train/`` are shown in the progress bar.
            value: a tensor of one number.
        """
        if self._notes is not None:
            self._notes[name] = value.detach()

    @contextmanager
    def noting(self, wanted: bool = True) -> Iterator[dict[str, Tensor]]:
        """Collect the notes that are made inside the block, by name; none if they are not wanted."""
        notes: dict[str, Tensor] = {}
        self._notes = notes if wanted else None
        try:
            yield notes
        finally:
            self._notes = None

    def follow(
        self,
        name: str,
        sampler: Sampler,
        target: LogDensity,
        start: Tensor,
        noise: RandomSource,
        steps: int | None = None,
    ) -> Tensor:
        """The end of a chain, ``(B, *event)``; its health is noted as ``mcmc/<name>/...``."""
        if self._notes is None:
            return sampler(target, start, noise, steps=steps)
        end, info = sampler.run(target, start, noise, steps=steps)
        for key, value in info.scalars().items():
            self.note(f"mcmc/{name}/{key}", value)
        return end

    # Random streams

    def noise(self, purpose: str, batch_idx: int) -> Noise:
        """The noise of this process for one purpose in one training step."""
        layout = (self.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)
        key = (self.seed, purpose, self.current_epoch, batch_idx)
        source = _SOURCES[self.noise_source]
        return source.shards(*key, shards=self.noise_shards, rank=layout[0], world_size=layout[1])

    def sample_noise(self, purpose: str, index: Tensor) -> Noise:
        """Noise per row, keyed by ``index: (B,)``: a score depends on neither the batch nor the processes."""
        return _SOURCES[self.noise_source].samples(self.seed, purpose, index=index)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch's own generator, which dropout uses, so that a resumed run repeats its draws."""
        digest = Noise([(self.seed, "modules", self.global_rank, self.current_epoch, batch_idx)])
        torch.manual_seed(digest.seeds[0])
        if batch_idx == 0:
            self._losses = 0.0, 0

    # The Trainer's hooks

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        every = max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        due = (self.trainer.global_step + 1) % every == 0
        with self.noting(due) as notes:
            loss = self.loss(batch, batch_idx)
        if loss.dim():
            raise ValueError(
                f"{type(self).__name__}.loss must return a scalar, not the shape {tuple(loss.shape)}"
            )
        self._losses = self._losses[0] + loss.detach(), self._losses[1] + 1
        if due:
            # Logging costs more than a small training step. It happens only on the steps that are written.
            self.log("loss", loss.detach(), prog_bar=True)
            shown = {name for name in notes if name == "stage" or name.startswith("train/")}
            self.log_dict({name: notes[name] for name in notes if name in shown}, prog_bar=True)
            self.log_dict({name: notes[name] for name in notes if name not in shown})
        return loss

    def configure_model(self) -> None:
        """Refuse the strategies that cannot train a method with chains.

        Raises:
            UserError: in one line; see :mod:`lebm.estimators.processes`.
        """
        check_strategy(self, self.trainer.strategy)

    def on_train_epoch_end(self) -> None:
        """Let callbacks monitor the epoch's mean of the loss; loggers have the loss of single steps."""
        total, number = self._losses
        self.log("loss", total / max(1, number), logger=False, sync_dist=self.trainer.world_size > 1)

    def on_train_batch_end(self, *args: Any) -> None:
        """Put off a stop between the batches of one step, because no checkpoint holds their gradients."""
        self._stopping = self._stopping or self.trainer.should_stop
        self.trainer.should_stop = self._stopping and not accumulating(self.trainer)

    def on_validation_end(self) -> None:
        self.on_train_batch_end()

    def on_train_start(self) -> None:
        """Try to rebuild the model, and count the epoch with which a resumed run begins."""
        self._stopping = False
        self._description()
        count_begun_epoch(self.trainer)

    def configure_optimizers(self) -> Any:
        # The gradient scaler of half precision and fused Adam clash in clipping.
        half = self._trainer is not None and self.trainer.precision == "16-mixed"
        optimizer, schedule = self.optimizer_settings.build(self.networks(), fused=not half)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take the steps of a batch; each calls the closure for its loss.

        Several processes then gather their chain pools, as a checkpoint may follow.
        """
        for _ in self.updates():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            if self.trainer.world_size > 1:
                gather_pools(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each network by itself; ``--trainer.gradient_clip_val`` is the limit of networks without one.

        Raises:
            UserError: for ``--trainer.gradient_clip_algorithm value``.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise UserError(
                f"trainer.gradient_clip_algorithm {gradient_clip_algorithm}: networks are clipped by norm"
                " only; leave it out"
            )
        self.optimizer_settings.clip(optimizer, gradient_clip_val)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how to rebuild the model, as plain data, or why it cannot be rebuilt."""
        checkpoint["lebm_format"] = checkpoints.FORMAT
        checkpoint["hyper_parameters"] = deepcopy(self._description())
        checkpoint["epoch_losses"] = [float(self._losses[0]), self._losses[1]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on inside an epoch that a stop has cut short."""
        total, number = checkpoint.get("epoch_losses", (0.0, 0))
        self._losses = total, number
        reopen_epoch(checkpoint["loops"]["fit_loop"])

    def _description(self) -> Any:
        """How to rebuild the model. It is tried once, and a model that cannot be rebuilt gets a warning."""
        if self._described is None:
            with isolate_rng():
                self._described, warning = tried(self)
            if warning and (self._trainer is None or self.trainer.is_global_zero):
                warnings.warn(UserNotice(warning), stacklevel=2)
        return self._described

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[Method],
        checkpoint_path: Any,
        map_location: Any = "cpu",
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        trust: Iterable[str] = (),
    ) -> Method:
        """Rebuild a model from its checkpoint alone; see :func:`lebm.load`.

        Raises:
            ValueError: for ``weights_only=False`` and for ``hparams_file``: neither is ever needed.
            UserError: if the file cannot be read, names a class outside the trusted packages, or holds
                another method.
        """
        if weights_only is False or hparams_file is not None:
            raise ValueError(
                "lebm checkpoints hold no pickles and need no hparams_file; leave both arguments at their"
                " defaults"
            )
        return checkpoints.load(checkpoint_path, cls, trust=trust, map_location=map_location or "cpu")
