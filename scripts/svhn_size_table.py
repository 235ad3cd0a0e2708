"""Kinds of inference with the released SVHN networks on images of CIFAR-10: train the cells, write the table.

    python scripts/svhn_size_table.py run FOLDER     # three cells of 15 CPU minutes; done cells are skipped
    python scripts/svhn_size_table.py write

One thread: set OMP_NUM_THREADS=1. The measurements are not in the time. The rates fall by a cosine to a tenth
over the time of a cell. No cell is near the end of its training, so the table is about the first minutes."""

from __future__ import annotations

import json
from typing import Any

import torch
from inference_table import WITHOUT, Clock, draws, images, noise
from lightning.pytorch import Trainer
from results_page import RESULTS, folded, grid, opened, publish, run_or_write

from lebm.metrics import FlatFeatures, frechet_distance

FOLDER = RESULTS / "svhn_size"
ROWS = {
    "short_run": ("20 steps from N(0, I), as released", "60 fresh steps", ()),
    "taught+pool": (
        "5 steps from an encoder that learns the ends",
        "10 steps of a pool",
        ("inference/taught", "prior/persistent"),
    ),
    "variational+pool": (
        "a draw of a variational encoder",
        "10 steps of a pool",
        ("inference/variational", "prior/persistent"),
    ),
}
PLAIN = {"data.init_args.config_name": None}  # the images of CIFAR-10 have no configurations
LOOKS = (0.5, 1.0, 2.0, 5.0, 10.0)
DRAWS, REAL, TEST = 1_000, 10_000, 200


class Measure:
    """Error of test images and distance of draws in 8 by 8 pixels."""

    def __init__(self, data: Any) -> None:
        self.features = FlatFeatures()
        self.real = self.of(images(data.train, range(REAL)))
        self.test = images(data.test, range(TEST))
        self.floor = self.distance(self.of(images(data.train, range(REAL, REAL + DRAWS))))

    def of(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).double()

    def distance(self, fake: torch.Tensor) -> float:
        return float(frechet_distance(fake.mean(0), fake.T.cov(), self.real.mean(0), self.real.T.cov()))

    def __call__(self, model: Any) -> dict[str, float]:
        model.eval()
        z = model.encode(self.test, generator=noise("encode"))
        with torch.no_grad():
            error = float((model.decode(z) - self.test).square().mean())
        distance = self.distance(self.of(draws(model, DRAWS, 60)))
        model.train()
        return {"mse": error, "distance": distance}


def cell(folder: str, row: str, minutes: float) -> None:
    target = FOLDER / f"{row}.json"
    if target.exists():
        return
    model, data = opened("latent_mle/svhn", "data/cifar10", *ROWS[row][2], folder=folder, settings=PLAIN)
    measure = Measure(data)
    clock = Clock(60 * minutes, measure, LOOKS)
    trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=[clock], limit_val_batches=0, **WITHOUT)
    trainer.fit(model, data)
    end = {"minutes": minutes, "step": trainer.global_step, **measure(model)}
    record = {
        "command": f"python scripts/svhn_size_table.py run FOLDER --minutes {minutes:g} --rows {row}",
        "floor": measure.floor,
        "curve": [*clock.curve, end],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, record["curve"], flush=True)


def passed(curve: list[dict[str, float]], goal: dict[str, float], key: str) -> str:
    """The first look at which a value is no larger than the goal's."""
    return next((f"{look['minutes']:g} min" for look in curve if look[key] <= goal[key]), "never")


def table() -> str:
    """One line per row; the looks at the error and at the distance, and when each passes the first row."""
    cells = {row: json.loads((FOLDER / f"{row}.json").read_text()) for row in ROWS}
    goal = cells["short_run"]["curve"][-1]
    rows = []
    for row, own in cells.items():
        curve = own["curve"]
        values = [" / ".join(f"{look['mse']:.3f}" for look in curve)]
        values.append(" / ".join(f"{look['distance']:.1f}" for look in curve))
        values += (
            ["", ""] if row == "short_run" else [passed(curve, goal, key) for key in ("mse", "distance")]
        )
        rows.append([*ROWS[row][:2], f"{curve[-1]['step']:,}", *values])
    head = ["latents of data in training", "prior chain in training", "steps", "MSE", "distance"]
    head += ["error of the released row after", "its distance after"]
    return "\n\n".join([grid(head, rows), folded([own["command"] for own in cells.values()])])


BLOCKS = {"svhn_size": table}


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
