"""A model and data that are small enough to evaluate in a blink."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from lebm.data.images import to_unit_range
from lebm.data.loader import BatchLoader, ShardedBatchSampler
from lebm.data.rows import ImageRows
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import Langevin

__all__ = ["EchoModel", "TinyData", "latent_mle", "trainer"]

SHAPE = (1, 4, 4)


def latent_mle() -> LatentMLE:
    """Two latent dimensions, images of 4 by 4, double precision."""
    torch.manual_seed(0)
    return LatentMLE(
        GaussianLikelihood(MLPGenerator(2, SHAPE, hidden=[8]), sigma=0.5),
        EnergyPrior(MLPEnergy(2, hidden=[8])),
        Langevin(4, 0.4),
        Langevin(3, 0.1),
        AdamGroups({"generator": 1e-3, "energy": 1e-3}),
        noise_shards=2,
    ).double()


class EchoModel(LightningModule):
    """Gives back images plus one trained number; its score is the sum of the pixels.

    Args:
        poison: index of a sample whose outputs are made NaN; -1 for none.
    """

    anomaly_score_name = "the sum of the pixels"
    chain_settings: Mapping[str, Any] = {}
    latent_prior = None

    def __init__(self, poison: int = -1) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.1))
        self.poison = poison

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        return -self.shift

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        x = batch["x"]
        poison = torch.where(batch["index"] == self.poison, torch.nan, 0.0)
        flat = x.reshape(x.shape[0], 16)
        return {
            "x": x,
            "z": flat[:, :2],
            "reconstruction": x + self.shift + poison[:, None, None, None],
            "anomaly_score": 100 * flat.sum(dim=1) + poison,
        }

    test_step = validation_step

    def sample(self, n: int, *, steps: int | None = None, generator: Any = None) -> Tensor:
        noise = generator.normal((n, *SHAPE)) * 0.6  # some beyond [-1, 1]
        if self.poison >= 0:
            noise[-1] = torch.nan
        return noise + self.shift

    def observations(self, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["x"]

    def inferred(self, x: Tensor) -> None:
        """There is no inference model."""

    def sample_latent(self, n: int, *, steps: int | None = None, generator: Any = None) -> Tensor:
        return generator.normal((n, 2))


class _AnyPiece(ShardedBatchSampler):
    """Allows empty pieces, which other data modules may hand out."""

    def __init__(self, rows: int, batch_size: int, rank: int, world_size: int) -> None:
        super().__init__(max(rows, world_size), max(batch_size, world_size), rank=rank, world_size=world_size)
        self.rows = self._end = rows
        self.batch_size = batch_size
        self._batches = -(-rows // batch_size)


class TinyData(LightningDataModule):
    """Random images with labels 0, 1, 2, of which 2 is the anomaly.

    Args:
        sizes: rows of the training, validation and test split.
        batch_size: rows of a global batch.
        empty_pieces: let a process get no row of a short last batch.
        held_out_label: the anomalous class; ``None`` for data without such flags.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int] = (17, 9, 23),
        batch_size: int = 4,
        empty_pieces: bool = False,
        held_out_label: int | None = 2,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.empty_pieces = empty_pieces
        splits, held_out = [], [] if held_out_label is None else [held_out_label]
        for number, size in enumerate(sizes):
            images = np.random.default_rng(number).integers(0, 256, (size, *SHAPE), dtype=np.uint8)
            splits.append(ImageRows([images], np.arange(size) % 3, np.arange(size), held_out))
        self.train, self.validation, self.test = splits

    def _sampler(self, rows: int, **options: Any) -> ShardedBatchSampler:
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        if self.empty_pieces and not options:
            return _AnyPiece(rows, self.batch_size, rank, world_size)
        return ShardedBatchSampler(rows, self.batch_size, rank=rank, world_size=world_size, **options)

    def train_dataloader(self) -> BatchLoader:
        return BatchLoader(self.train, self._sampler(len(self.train), shuffle=True, drop_last=True))

    def evaluation_dataloader(self, dataset: ImageRows) -> BatchLoader:
        return BatchLoader(dataset, self._sampler(len(dataset)))

    def val_dataloader(self) -> BatchLoader:
        return self.evaluation_dataloader(self.validation)

    def test_dataloader(self) -> BatchLoader:
        return self.evaluation_dataloader(self.test)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        return {**batch, "x": to_unit_range(batch["x"])}


def trainer(folder: str | Path, callbacks: list[Any], devices: int = 1, **options: Any) -> Trainer:
    """A quiet CPU trainer with its run folder at ``folder``."""
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    strategy = "ddp" if devices > 1 else "auto"
    return Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        default_root_dir=str(folder),
        callbacks=callbacks,
        **{**quiet, "log_every_n_steps": 1, **options},
    )
