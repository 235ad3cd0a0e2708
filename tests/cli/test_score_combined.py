"""`lebm score --score combined`: reconstruction and prior by their ranks among the run's training images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm import load
from lebm.data import ImageData, to_unit_range
from lebm.metrics import surprisal
from tests.cli.conftest import Run

DATA = (
    "data: {class_path: ImageData, init_args: {path: ./pictures, image_size: 4, channels: 1,"
    " batch_size: 4, validation_size: 0.5}}\n"
)


@pytest.fixture
def run_of(lebm: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Train on ``n`` pictures, half of them set aside, and keep 12 more for the test."""
    monkeypatch.chdir(tmp_path)

    def train(n: int) -> torch.Tensor:
        source = np.random.default_rng(0)
        pixels = source.integers(0, 256, (n + 12, 4, 4), dtype=np.uint8)
        for row, picture in enumerate(pixels):
            file = Path("pictures", "train" if row < n else "test", "all", f"{row:03d}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        Path("own.yaml").write_text(DATA)
        assert lebm("fit", "-c", tiny, "-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 3) == 0
        return to_unit_range(torch.from_numpy(pixels[n:, None]))

    return train


def test_the_column_is_the_sum_of_both_surprisals(run_of, lebm: Run, capsys) -> None:
    x = run_of(200)
    assert lebm("score", "run", "--score", "combined", "--batch-size", 5, "--false_positive_rate", 0.2) == 0
    shown = capsys.readouterr().out
    assert f"each score is compared with 100 images of {Path.cwd()}/pictures (train)" in shown
    assert "/pictures (validation) score above it" in shown
    with Path("run/scores.csv").open(newline="") as file:
        found = [float(row["combined"]) for row in csv.DictReader(file)]

    model = load("run")

    def terms(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = model.encode(x, steps=5, generator=model.sample_noise("encode", torch.arange(len(x))))
        error = (x - model.decode(z)).square().flatten(1).mean(1)
        return error.detach(), -model.prior.log_density(z).detach()

    kept = _training_pixels()
    expected = sum(surprisal(score, normal) for score, normal in zip(terms(x), terms(kept), strict=True))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)


def test_too_few_training_images_are_one_line(run_of, lebm: Run, capsys) -> None:
    run_of(60)
    assert lebm("score", "run", "--score", "combined") == 2
    assert "30 training images are too few; 40 are needed" in capsys.readouterr().err


def _training_pixels() -> torch.Tensor:
    data = ImageData("./pictures", image_size=4, channels=1, validation_size=0.5)
    data.setup()
    return data.train.observations()
