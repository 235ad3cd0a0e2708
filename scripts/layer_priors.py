"""The layers of a ladder under three priors and five settings on MNIST: train the cells, write the table.

    python scripts/layer_priors.py run FOLDER --settings recipe,sharp --seeds 0,1,2   # done cells are skipped
    python scripts/layer_priors.py write

One thread: set OMP_NUM_THREADS=1. Two cells of a setting and seed differ in the prior alone. Everything is
measured once, at the end, from the last weights, and no setting is chosen by it."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from inference_table import WITHOUT, images
from lightning.pytorch import Trainer
from results_page import ROOT, opened, publish, run_or_write
from write_layers import BLOCKS, FOLDER

from lebm.callbacks import LayerClassification, ReconstructionError
from lebm.estimators.latent_model import LatentModel
from lebm.models import DiagonalGaussian
from lebm.run.folder import hardware, versions

INIT = "model.init_args"
FREE = {f"{INIT}.prior.init_args.energy.init_args.spectral_norm": False}
PRIORS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "normal": ("joint_hierarchical/mnist_vae", [], {}),
    "bounded": ("joint_hierarchical/mnist", [], {}),
    "free": ("joint_hierarchical/mnist", ["prior/persistent"], FREE),
}
"""Recipe, overlays and settings of each prior."""
VLAE = "joint_hierarchical/mnist_vlae"
RATES = dict.fromkeys(("generator", "encoder"), 2e-4)
NORMAL = {"class_path": "StandardNormal", "init_args": {"latent_dim": 6}}
NETWORKS: dict[str, dict[str, tuple[str, list[str], dict[str, Any]]]] = {
    "vlae": {
        "normal": (VLAE, [], {f"{INIT}.prior": NORMAL, f"{INIT}.optimizer.init_args.lr": RATES}),
        "bounded": (VLAE, [], {}),
        "free": (VLAE, ["prior/persistent"], FREE),
    }
}
"""Settings with networks of their own: what they have in place of PRIORS."""
SETTINGS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "sharp": {f"{INIT}.likelihood.init_args.sigma": 0.3},
    "warm": {f"{INIT}.inference.init_args.warm_up": 2000},
    "long": {f"{INIT}.optimizer.init_args.lr_decay": 0.9283},
    "vlae": {f"{INIT}.optimizer.init_args.lr_decay": 0.825},
}
EPOCHS = {"long": 30, "vlae": 12}
"""Of a setting, if not the 10 of the recipes; its rates fall to the same share."""


def figures_of(model: LatentModel, x: torch.Tensor) -> dict[str, list[float]]:
    """Of each layer: root mean square of q's means, and the KL of q to N(0, I) in nats per image."""
    q = model.eval().inferred(x)
    normal = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    layers = model.likelihood.generator.layout
    squares, divergences = q.mean.square(), q.divergences(normal)
    return {
        "spread": [float(squares[:, part].mean().sqrt()) for part in layers.slices],
        "kl": [float(divergences[:, part].sum(1).mean()) for part in layers.slices],
    }


def cell(folder: str, setting: str, prior: str, seed: int) -> None:
    """Train and measure one cell, if it is not done."""
    target = FOLDER / f"{setting}-{prior}-{seed}.json"
    if target.exists():
        return
    recipe, overlays, own = NETWORKS.get(setting, PRIORS)[prior]
    settings = {"seed_everything": seed, **own, **SETTINGS[setting]}
    model, data = opened(recipe, *overlays, folder=folder, settings=settings)
    begun = time.process_time()
    epochs = EPOCHS.get(setting, 10)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", limit_val_batches=0, **WITHOUT)
    trainer.fit(model, data)
    minutes = (time.process_time() - begun) / 60
    kept = ROOT / "runs" / "layers" / f"{target.stem}.ckpt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(kept)
    judge = Trainer(accelerator="cpu", callbacks=[LayerClassification(), ReconstructionError()], **WITHOUT)
    metrics = dict(judge.test(model, data, verbose=False)[0])
    x = images(data.test, range(len(data.test)))
    record = {
        "command": f"python scripts/layer_priors.py run FOLDER --settings {setting} --priors {prior}"
        f" --seeds {seed}",
        "minutes": minutes,
        "seed": seed,
        "steps": trainer.global_step,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "versions": versions(),
        "metrics": metrics,
    }
    with torch.no_grad():
        record |= figures_of(model, x)
    FOLDER.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, round(minutes, 1), record["spread"], record["kl"], record["metrics"], flush=True)


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--settings", default=",".join(SETTINGS))
    runner.add_argument("--priors", default=",".join(PRIORS))
    runner.add_argument("--seeds", default="0,1,2")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        for setting in chosen.settings.split(","):
            for seed in chosen.seeds.split(","):
                for prior in chosen.priors.split(","):
                    cell(chosen.folder, setting, prior, int(seed))
    publish(BLOCKS)


if __name__ == "__main__":
    main()
