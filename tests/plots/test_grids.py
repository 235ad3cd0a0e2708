"""Pictures on one fixed scale, whole files, every logger."""

import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lebm.callbacks import SampleGrid
from lebm.plots import image_grid, write_png
from tests.callbacks.tiny import EchoModel, TinyData, trainer


def test_grid_has_one_scale_for_all_images() -> None:
    x = torch.stack([torch.full((1, 2, 2), value) for value in (-1.0, 0.0, 0.5, 1.0, -7.0, 7.0)])
    grid = image_grid(x, columns=3)
    assert grid.shape == (2 + 2 * 4, 2 + 3 * 4, 3)
    assert grid.dtype == np.uint8
    values = [[int(grid[2 + 4 * row, 2 + 4 * column, 0]) for column in range(3)] for row in range(2)]
    assert values == [[0, 128, 191], [255, 0, 255]]
    assert int(grid[0, 0, 0]) == 255  # the border


def test_colour_channels_keep_their_order_and_eight_bit_data_survive() -> None:
    levels = torch.arange(3 * 256).remainder(256).reshape(1, 3, 16, 16).to(torch.uint8)
    levels[:, 1] = levels[:, 1].flip(-1)
    grid = image_grid(levels.float() / 127.5 - 1)
    assert np.array_equal(grid, levels[0].permute(1, 2, 0).numpy())


def test_broken_pixels_are_magenta() -> None:
    x = torch.zeros(1, 1, 2, 2)
    x[0, 0, 0, 1] = float("nan")
    assert image_grid(x)[0, 1].tolist() == [255, 0, 255]
    assert image_grid(x)[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (0, 1, 4, 4), (2, 16)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        image_grid(torch.zeros(shape))


def test_png_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = write_png(tmp_path / "a" / "b.png", picture)
    assert np.array_equal(np.asarray(Image.open(path)), picture)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_png(path, 255 - picture)
    assert np.array_equal(np.asarray(Image.open(path)), picture)
    assert [file.name for file in path.parent.iterdir()] == ["b.png"]


def test_pictures_reach_disk_tensorboard_and_whoever_logs_images(tmp_path: Path) -> None:
    calls = []

    class TakesImages(CSVLogger):
        def log_image(self, key: str, images: list, step: int | None = None) -> None:
            inspect.signature(WandbLogger.log_image).bind(self, key=key, images=images, step=step)
            calls.append((key, images[0], step))

    board = TensorBoardLogger(tmp_path, name="board", version="")
    run = trainer(
        tmp_path,
        [SampleGrid(n=4, columns=2)],
        logger=[board, CSVLogger(tmp_path, name="csv"), TakesImages(tmp_path, name="take")],
    )
    run.fit(EchoModel(), datamodule=TinyData())
    files = sorted(file.name for file in (tmp_path / "images" / "samples").iterdir())
    assert files == ["epoch-0001-step-00000004.png", "epoch-0002-step-00000008.png", "latest.png"]
    newest = np.asarray(Image.open(tmp_path / "images" / "samples" / "latest.png"))
    assert np.array_equal(newest, np.asarray(Image.open(tmp_path / "images" / "samples" / files[1])))
    assert [(key, step) for key, _, step in calls] == [("images/samples", 4), ("images/samples", 8)]
    assert np.array_equal(calls[1][1], newest)
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("images/samples")] == [4, 8]


def test_a_fast_development_run_writes_nothing(tmp_path: Path) -> None:
    trainer(tmp_path, [SampleGrid(n=4)], fast_dev_run=True).fit(EchoModel(), datamodule=TinyData())
    assert not (tmp_path / "images").exists()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    from lebm.callbacks import publish_image

    other = SimpleNamespace(
        is_global_zero=False, fast_dev_run=False, default_root_dir=str(tmp_path), loggers=[]
    )
    assert publish_image(other, "samples", np.zeros((2, 2, 3), dtype=np.uint8)) is None  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
