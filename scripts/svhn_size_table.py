"""Kinds of inference with the released SVHN networks on images of CIFAR-10: train the cells, write the table.

    python scripts/svhn_size_table.py run FOLDER     # three cells of 15 CPU minutes; done cells are skipped
    python scripts/svhn_size_table.py write

One thread: set OMP_NUM_THREADS=1. The measurements are not in the time. The rates fall by a cosine to a tenth
over the time of a cell. No cell is near the end of its training, so the table is about the first minutes."""

from __future__ import annotations

import json
from typing import Any

import torch
from inference_table import Clock, Scale, draws, images, noise
from results_page import opened, publish, run_or_write
from write_inference import BLOCKS, SVHN

from lebm.metrics import FlatFeatures

ROWS = {
    "short_run": (),
    "taught+pool": ("inference/taught", "prior/persistent"),
    "variational+pool": ("inference/variational", "prior/persistent"),
}
PLAIN = {"data.init_args.config_name": None}  # the images of CIFAR-10 have no configurations
LOOKS = (0.5, 1.0, 2.0, 5.0, 10.0)
DRAWS, REAL, TEST = 1_000, 10_000, 200


class Measure(Scale):
    """Error of test images and distance of draws in 8 by 8 pixels."""

    def __init__(self, data: Any) -> None:
        self.features = FlatFeatures()
        self.real = self.of(images(data.train, range(REAL)))
        self.test = images(data.test, range(TEST))
        self.floor = self.distance(self.of(images(data.train, range(REAL, REAL + DRAWS))))

    def __call__(self, model: Any) -> dict[str, float]:
        model.eval()
        z = model.encode(self.test, generator=noise("encode"))
        with torch.no_grad():
            error = float((model.decode(z) - self.test).square().mean())
        distance = self.distance(self.of(draws(model, DRAWS, 60)))
        model.train()
        return {"mse": error, "distance": distance}


def cell(folder: str, row: str, minutes: float) -> None:
    target = SVHN / f"{row}.json"
    if target.exists():
        return
    model, data = opened("latent_mle/svhn", "data/cifar10", *ROWS[row], folder=folder, settings=PLAIN)
    measure = Measure(data)
    clock = Clock(60 * minutes, measure, LOOKS)
    trainer = clock.train(model, data)
    end = {"minutes": minutes, "step": trainer.global_step, **measure(model)}
    record = {
        "command": f"python scripts/svhn_size_table.py run FOLDER --minutes {minutes:g} --rows {row}",
        "floor": measure.floor,
        "curve": [*clock.curve, end],
    }
    SVHN.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, record["curve"], flush=True)


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of CIFAR-10 in the layout of the Hub, or its name there")
    runner.add_argument("--minutes", type=float, default=15)
    runner.add_argument("--rows", default=",".join(ROWS))
    chosen = parser.parse_args()
    if chosen.verb == "run":
        for row in chosen.rows.split(","):
            cell(chosen.folder, row, chosen.minutes)
    publish(BLOCKS)


if __name__ == "__main__":
    main()
