"""Recipes on MNIST at one and at three times their length: train the cells and write the table.

    python scripts/length_table.py run FOLDER --recipes latent_mle/mnist --times 1,3   # skips done cells
    python scripts/length_table.py write

One thread: set OMP_NUM_THREADS=1. A cell has the recipe's epochs times a number. Its rates fall to the same
share over all its epochs, and its stages are as many times longer. The looks are after each half of the
recipe's length. They have weights of their own, so that they do not change the training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from inference_table import DRAWS, TEST, WITHOUT, Scale, images, noise
from lightning.pytorch import Callback, Trainer
from results_page import opened, publish, run_or_write
from sklearn.metrics import average_precision_score
from write_inference import BLOCKS, DECAY, EPOCHS, LENGTH, LENGTH_RECIPES, STEPS

from lebm import load
from lebm.config import recipes
from lebm.evaluation.data import batches, some_rows
from lebm.evaluation.scores import combined, score_pass
from lebm.run.folder import hardware, versions

NORMAL = 5_000


class Looks(Callback):
    """Keeps the weights after every half of the recipe's length, with the CPU time until then."""

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self.folder, self.seen, self.kept = every, folder, 0, []

    def on_train_start(self, trainer: Trainer, model: Any) -> None:
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, model: Any, *rest: Any) -> None:
        self.seen += 1
        if self.seen % self.every == 0:
            spent = (time.process_time() - self.begun) / 60
            path = self.folder / f"{self.seen}.ckpt"
            trainer.save_checkpoint(path)
            self.kept.append({"step": self.seen, "minutes": spent, "path": path})


def measures(model: Any, data: Any, scale: Scale) -> dict[str, float]:
    """Distance and error of a model of all digits, AUPRC of a model of nine."""
    model.eval()
    if data.held_out_label is not None:
        train = score_pass(model, batches(some_rows(data.train, 0, NORMAL), 500), "training images")
        test = score_pass(model, batches(data.test, 500), "test images")
        ranked = test["label"] == data.held_out_label
        return {"auprc": float(average_precision_score(ranked, combined(test, train)))}
    parts = range(0, DRAWS, 500)
    fake = torch.cat([scale.of(model.sample(500, generator=noise("sample", i))) for i in parts])
    x = images(data.test, range(TEST))
    pairs = zip(parts, x.split(500), strict=False)
    z = torch.cat([model.encode(part, generator=noise("encode", i)) for i, part in pairs])
    with torch.no_grad():
        error = float((model.decode(z) - x).square().mean())
    return {"distance": scale.distance(fake), "mse": error}


def cell(folder: str, recipe: str, times: int, seed: int) -> None:
    """Train and measure one cell, if it is not done."""
    target = LENGTH / f"{recipe.replace('/', '-')}-{times}-{seed}.json"
    if target.exists():
        return
    name = recipe.partition("+")[0]
    content = yaml.safe_load(recipes.find(name).read_text())
    arguments, own = content["model"]["init_args"], LENGTH_RECIPES[recipe]
    epochs = own.get(EPOCHS, content["trainer"]["max_epochs"])
    decay = own.get(DECAY, arguments["optimizer"]["lr_decay"])
    settings: dict[str, Any] = {"seed_everything": seed, **own, DECAY: decay ** (1 / times)}
    settings.pop(EPOCHS, None)
    if "stages" in arguments:
        settings[STEPS] = times * own.get(STEPS, arguments["stages"]["init_args"]["steps"])
    model, data = opened(name, folder=folder, settings=settings)
    length = epochs * (len(data.train) // data.batch_size)
    with TemporaryDirectory() as temporary:
        looks = Looks(length // 2, Path(temporary))
        trainer = Trainer(
            max_epochs=epochs * times, accelerator="cpu", limit_val_batches=0, callbacks=[looks], **WITHOUT
        )
        trainer.fit(model, data)
        scale = Scale(data)
        curve = [
            {"step": look["step"], "minutes": look["minutes"], **measures(load(look["path"]), data, scale)}
            for look in looks.kept
        ]
    record = {
        "command": f"python scripts/length_table.py run FOLDER --recipes {recipe} --times {times}"
        f" --seeds {seed}",
        "recipe": recipe,
        "times": times,
        "length": length,
        "seed": seed,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "versions": versions(),
        "floor": scale.floor,
        "curve": curve,
    }
    LENGTH.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, curve, flush=True)


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--recipes", default=",".join(LENGTH_RECIPES))
    runner.add_argument("--times", default="1,3")
    runner.add_argument("--seeds", default="0")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        for seed in chosen.seeds.split(","):
            for recipe in chosen.recipes.split(","):
                for times in chosen.times.split(","):
                    cell(chosen.folder, recipe, int(times), int(seed))
    publish(BLOCKS)


if __name__ == "__main__":
    main()
