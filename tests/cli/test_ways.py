"""Pictures of ways through the latent space: between two images, and along one coordinate."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm import load
from lebm.cli.common import encode_noise
from lebm.data.images import open_images, to_unit_range
from lebm.data.splits import spread_rows
from lebm.plots import between, image_grid, most_visible, swept
from lebm.samplers import Noise
from tests.cli.conftest import Run

DATA = ("--data", "./pictures")


def _encoded(run: Path, rows: list[int]) -> torch.Tensor:
    images = open_images("./pictures", "test", image_size=4, channels=1)
    x = to_unit_range(torch.tensor(images.images[rows]))
    return load(run).encode(x, steps=5, generator=encode_noise(3, torch.tensor(rows)))


def _same(file: Path | str, run: Path, z: torch.Tensor, columns: int) -> bool:
    with torch.no_grad():
        expected = image_grid(load(run).decode(z), columns)
    shown = np.asarray(Image.open(file)).astype(int)
    return shown.shape == expected.shape and np.abs(shown - expected.astype(int)).max() <= 1


def test_the_way_between_two_rows_of_the_data(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(trained).seed == 0
    words = (*DATA, "--seed", 3, "-n", 5, "--batch-size", 2)
    assert lebm("interpolate", trained, 7, 2, *words) == 0
    shown = capsys.readouterr().out
    assert "1 interpolation(s) between ./pictures (test) in runs/tiny/images/interpolation.png" in shown
    assert "rows of the data: 7 to 2" in shown
    z = _encoded(trained, [7, 2])
    assert _same(trained / "images/interpolation.png", trained, between(z[0], z[1], 5), 5)


def test_without_rows_the_images_are_spread_over_the_classes(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("interpolate", trained, *DATA, "--pairs", 2, "--seed", 3) == 0
    rows = spread_rows(np.repeat([0, 1], 6), 12, 4, seed=3).tolist()
    assert [row // 6 for row in rows] == [0, 1, 0, 1]
    assert f"rows of the data: {rows[0]} to {rows[1]}, {rows[2]} to {rows[3]}" in capsys.readouterr().out
    z = _encoded(trained, rows)
    ways = torch.cat([between(z[0], z[1], 8), between(z[2], z[3], 8)])
    assert _same(trained / "images/interpolation.png", trained, ways, 8)


def test_the_way_between_two_seeds_needs_no_data(lebm: Run, trained: Path) -> None:
    assert lebm("interpolate", trained, "--seeds", 4, 5, "-n", 3, "--out", "way.png") == 0
    model = load(trained)
    ends = [
        model.sample_latent(1, generator=Noise.samples(seed, "sample", index=range(1)))[0] for seed in (4, 5)
    ]
    assert _same("way.png", trained, between(ends[0], ends[1], 3), 3)
    assert lebm("sample", trained, "-n", 1, "--seed", 4, "--out", "start.npy") == 0
    with torch.no_grad():
        np.testing.assert_allclose(np.load("start.npy"), model.decode(ends[0][None]), atol=1e-5)


def test_a_traversal_varies_one_coordinate_per_row(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--coordinates", 1, 0, "-n", 3, "--range", 2, "--seed", 3)
    assert lebm("traverse", trained, 4, *DATA, *words) == 0
    shown = capsys.readouterr().out
    assert "2 coordinates of row 4 of ./pictures (test) in runs/tiny/images/traversal.png" in shown
    assert "coordinates from above: 1, 0" in shown
    a, b = _encoded(trained, [4])[0].tolist()
    z = torch.tensor([[a, b - 2], [a, b], [a, b + 2], [a - 2, b], [a, b], [a + 2, b]])
    assert _same(trained / "images/traversal.png", trained, z, 3)


def test_the_most_visible_coordinates_come_first(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def decode(z: torch.Tensor) -> torch.Tensor:
        return (z * torch.tensor([1.0, 0.0, 3.0, 2.0])).view(-1, 1, 2, 2)

    assert most_visible(decode, torch.zeros(4), 1.0, 3) == [2, 3, 0]
    assert most_visible(decode, torch.zeros(4), 1.0, 1, among=[0, 1]) == [0]
    assert swept(torch.zeros(2), [1], 1.0, 3).tolist() == [[[0, -1], [0, 0], [0, 1]]]
    assert lebm("traverse", trained, "--from-seed", 4) == 0
    shown = capsys.readouterr().out
    assert "2 coordinates of draw 4 of the prior in" in shown
    assert re.search(r"coordinates from above: (0, 1|1, 0)\n", shown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["interpolate", "{run}", "3"], "3: an interpolation has two ends; name two"),
        (["interpolate", "{run}", "3", "4", "--seeds", "1", "2"], "3 4: an interpolation has two ends"),
        (["interpolate", "{run}", "3", "-4", *DATA], "-4"),
        (["interpolate", "{run}", "3", "12", *DATA], "row 12: ./pictures (test) has the rows 0 to 11"),
        (["interpolate", "{run}"], "name some with --data"),
        (["traverse", "{run}", "x", *DATA], "row x: ./pictures (test) has the rows 0 to 11"),
        (["traverse", "{run}", "1", "--from-seed", "2"], "leave out the row"),
        (["traverse", "{run}", "--from-seed", "2", "--coordinates", "2"], "the coordinates 0 to 1"),
        (["traverse", "{run}", "--from-seed", "2", "-n", "1"], "whole number of at least 2"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    lebm: Run,
    trained: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lebm(*(word.format(run=trained) for word in words)) == 2
    assert message in capsys.readouterr().err
    assert not list(trained.glob("images/*.png"))
