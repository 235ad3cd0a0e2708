"""Warnings about chains."""

import logging
from pathlib import Path

import pytest
import torch

from lebm.callbacks import ChainHealth
from tests.callbacks.tiny import EchoModel, TinyData, trainer


class _Logs(EchoModel):
    def __init__(self, gap: float, nonfinite: float) -> None:
        super().__init__()
        self.gap, self.nonfinite = gap, nonfinite

    def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.log_dict(
            {
                "train/energy_gap": self.gap,
                "mcmc/prior/nonfinite": self.nonfinite,
                "mcmc/prior/displacement": 1e9,
            }
        )
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("gap", "nonfinite", "words"),
    [
        (5.0, 0.0, []),
        (-500.0, 0.0, ["energy runs away"]),
        (torch.nan, 3.0, ["chains diverged", "energy runs away"]),
    ],
)
def test_each_alarm_sounds_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gap: float, nonfinite: float, words: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, logger="lebm"):
        trainer(tmp_path, [ChainHealth()]).fit(_Logs(gap, nonfinite), datamodule=TinyData())
    messages = sorted(record.message for record in caplog.records if record.name == "lebm.callbacks")
    assert len(messages) == len(words)
    assert all(any(word in message for message in messages) for word in words)
