"""Two processes with uneven and empty pieces measure what one does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lebm.callbacks import (
    AnomalyDetection,
    FrechetDistance,
    LatentPicture,
    ReconstructionError,
    ReconstructionGrid,
    SampleGrid,
)
from lebm.errors import UserError
from lebm.metrics import FlatFeatures
from tests.callbacks.tiny import EchoModel, TinyData, latent_mle, trainer
from tests.distributed import run_processes


def _measure(folder: Path, devices: int, empty_pieces: bool) -> dict[str, float]:
    """All figures of a short fit with validation and of a test."""
    measuring = [
        ReconstructionError(),
        AnomalyDetection(),
        FrechetDistance(FlatFeatures(2), n_samples=25, chunk_size=10, every_n_epochs=1),
    ]
    pictures = [SampleGrid(n=4), ReconstructionGrid(n=7, columns=4), LatentPicture(n=8)]
    model: Any = EchoModel() if empty_pieces else latent_mle()
    data = TinyData(sizes=(16, 9, 21), batch_size=8 if not empty_pieces else 4, empty_pieces=empty_pieces)
    run = trainer(folder / f"{devices}", [*measuring, *pictures], devices, max_epochs=1)
    if not empty_pieces:
        run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    return {name: value for callback in measuring for name, value in callback.figures.items()}


@pytest.mark.parametrize(
    "empty_pieces", [False, True]
)  # 21 rows by 8 end in 5, shared 2 and 3; by 4 in 1, shared 0 and 1
def test_two_processes_equal_one(tmp_path: Path, empty_pieces: bool) -> None:
    (one,) = run_processes(_measure, tmp_path, 1, empty_pieces, world_size=1)
    first, second = run_processes(_measure, tmp_path, 2, empty_pieces, world_size=2)
    assert first == second
    assert first.keys() == one.keys()
    assert {"test/auroc", "test/reconstruction_mse", "test/frechet_distance/pixels2"} <= one.keys()
    for name, value in one.items():
        assert first[name] == pytest.approx(value, rel=1e-6), name
    written = sorted(file.relative_to(tmp_path / "1") for file in (tmp_path / "1").rglob("*.png"))
    assert len(written) >= 6
    for file in written:
        a, b = (np.asarray(Image.open(tmp_path / devices / file)).astype(int) for devices in ("1", "2"))
        assert (np.abs(a - b) > 1).mean() < 0.002, file


def _refusals() -> str:
    try:
        trainer("unused", [AnomalyDetection()], 2).test(
            EchoModel(poison=0), datamodule=TinyData(), verbose=False
        )
    except UserError as error:
        return str(error)
    return ""


def test_all_processes_refuse_together() -> None:
    first, second = run_processes(_refusals)
    assert first == second
    assert "1 non-finite" in first
