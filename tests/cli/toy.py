"""A data module small enough for the tests of the command line."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lebm.component import Component


class ToyData(LightningDataModule, Component):
    """Twelve random 4x4 images.

    Args:
        batch_size: images a batch.
        nan_row: image with a pixel that is not a number.
        interrupt_at: batch at which somebody presses Ctrl-C.
        refuse: message of a refusal when the data are opened.
    """

    def __init__(
        self,
        batch_size: int = 4,
        nan_row: int | None = None,
        interrupt_at: int | None = None,
        refuse: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.nan_row = nan_row
        self.interrupt_at = interrupt_at
        self.refuse = refuse
        self.seen = 0

    def setup(self, stage: str | None = None) -> None:
        if self.refuse is not None:
            raise ValueError(self.refuse)

    def describe_split(self) -> dict[str, Any]:
        return {"train": 12, "seed": 7}

    def _loader(self) -> DataLoader:
        x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(7)) * 2 - 1
        if self.nan_row is not None:
            x[self.nan_row, 0, 1, 1] = float("nan")
        rows: list[Any] = [
            {"x": x[row], "label": torch.tensor(row % 3), "index": torch.tensor(row)} for row in range(12)
        ]
        return DataLoader(rows, batch_size=self.batch_size)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.training:
            self.seen += 1
            if self.seen == self.interrupt_at:
                raise KeyboardInterrupt
        return batch

    def train_dataloader(self) -> DataLoader:
        return self._loader()

    def val_dataloader(self) -> DataLoader:
        return self._loader()

    def test_dataloader(self) -> DataLoader:
        return self._loader()

    def predict_dataloader(self) -> DataLoader:
        return self._loader()
