"""When the sample grid draws, from which noise and which weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from PIL import Image

from lebm.callbacks import SampleGrid
from lebm.plots import image_grid
from lebm.samplers import Noise
from tests.callbacks.tiny import EchoModel, TinyData, latent_mle, trainer


def _files(folder: Path) -> list[str]:
    return sorted(file.stem for file in (folder / "images" / "samples").iterdir() if file.stem != "latest")


def test_same_noise_every_time_and_torch_randomness_untouched(tmp_path: Path) -> None:
    model = latent_mle()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    trainer(tmp_path, [SampleGrid(n=6, columns=3, steps=2, seed=5)]).test(
        model, datamodule=TinyData(), verbose=False
    )
    assert torch.equal(before, torch.get_rng_state())
    expected = image_grid(model.sample(6, steps=2, generator=Noise.shards(5, "sample grid")), 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images" / "samples" / "test.png")), expected)


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3, 4]), (10, [4])])
def test_every_n_epochs_and_the_last(tmp_path: Path, every: int, epochs: list[int]) -> None:
    trainer(tmp_path, [SampleGrid(n=1, every_n_epochs=every)], max_epochs=4).fit(
        EchoModel(), datamodule=TinyData()
    )
    assert _files(tmp_path) == [f"epoch-{epoch:04d}-step-{4 * epoch:08d}" for epoch in epochs]


def test_without_validation_and_when_training_ends_in_between(tmp_path: Path) -> None:
    model = EchoModel()
    trainer(tmp_path / "a", [SampleGrid(n=1)], limit_val_batches=0).fit(model, datamodule=TinyData())
    assert _files(tmp_path / "a") == ["epoch-0001-step-00000004", "epoch-0002-step-00000008"]
    trainer(tmp_path / "b", [SampleGrid(n=1)], max_epochs=-1, max_steps=6).fit(
        EchoModel(), datamodule=TinyData()
    )
    assert len(_files(tmp_path / "b")) == 2
    assert _files(tmp_path / "b")[-1].endswith("step-00000006")
    assert model.training


def test_the_picture_after_training_counts_epochs_as_the_others_do(tmp_path: Path) -> None:
    trainer(tmp_path, [SampleGrid(n=1, every_n_epochs=2)], max_epochs=3, check_val_every_n_epoch=2).fit(
        EchoModel(), datamodule=TinyData()
    )
    assert _files(tmp_path) == ["epoch-0002-step-00000008", "epoch-0003-step-00000012"]


@pytest.mark.parametrize("ours_first", [True, False])
def test_averaged_weights_are_drawn_whatever_the_order(tmp_path: Path, ours_first: bool) -> None:
    class Record(SampleGrid):
        def __init__(self) -> None:
            super().__init__(n=1)
            self.seen: list[float] = []

        def _draw(self, trainer, model) -> None:  # type: ignore[no-untyped-def]
            self.seen.append(float(model.shift.detach()))
            super()._draw(trainer, model)

    grid, average = Record(), EMAWeightAveraging(decay=0.5)
    order = [grid, average] if ours_first else [average, grid]
    trainer(tmp_path, order, max_epochs=1).fit(EchoModel(), datamodule=TinyData())
    value, mean = 0.1, 0.1
    for step in range(4):
        value += 0.01
        mean = value if step == 0 else 0.5 * mean + 0.5 * value
    assert grid.seen == pytest.approx([mean], abs=1e-6)
    assert abs(mean - value) > 0.004


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SampleGrid(every_n_epochs=0)
