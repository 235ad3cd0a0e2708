from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lebm.__main__ import main

RECIPE = Path(__file__).parents[1] / "cli" / "tiny.yaml"


def write_pictures(folder: Path, train: int = 60, test: int = 30) -> Path:
    """Images of 4 by 4 in three classes, of which the last is brighter."""
    noise = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            label = number % 3
            place = folder / split / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(60 * (label == 2), 120 + 60 * label, (4, 4), dtype=np.uint8)).save(
                place / f"{number:03d}.png"
            )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two steps with label 2 held out, in a working folder of its own."""
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_pictures(folder / "pictures")
        (folder / "own.yaml").write_text(
            "data: {class_path: lebm.data.ImageData, init_args: {path: ./pictures, image_size: 4, channels:"
            " 1, batch_size: 10, held_out_label: 2}}\ntrainer: {max_steps: 2, callbacks: [{class_path:"
            " lebm.callbacks.SampleGrid, init_args: {n: 4}}]}\n"
        )
        assert (
            main(["fit", "-c", str(RECIPE), "-c", "own.yaml", "--run_dir", "runs/a", "--trust", "tests"]) == 0
        )
        yield folder / "runs/a"
