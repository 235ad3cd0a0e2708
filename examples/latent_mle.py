"""LatentMLE in plain PyTorch Lightning: a latent energy-based prior learned by short Langevin chains.

Runs in a few seconds on a CPU. For readable digits, set STEPS to 800.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from lebm.data import ImageData, open_images, to_unit_range
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.plots import image_grid, write_png
from lebm.samplers import Langevin

STEPS, LATENT_DIM = 10, 12


def build() -> LatentMLE:
    """Return a model with a fully connected generator, and a standard normal tilted by a small energy."""
    return LatentMLE(
        likelihood=GaussianLikelihood(MLPGenerator(LATENT_DIM, [1, 28, 28], hidden=[400, 400]), sigma=0.3),
        prior=EnergyPrior(MLPEnergy(LATENT_DIM, hidden=[200, 200])),
        prior_sampler=Langevin(steps=60, step_size=0.4),
        posterior_sampler=Langevin(steps=20, step_size=0.1),
        optimizer=AdamGroups(lr={"generator": 2e-3, "energy": 5e-4}),
    )


def main() -> None:
    """Train, score test images, and write a picture of draws."""
    seed_everything(0, verbose=False)
    model = build()
    # The loaders divide batches over processes, so no distributed sampler is needed.
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(model, ImageData("embedded:mnist", batch_size=100))

    model.eval()
    test = open_images("embedded:mnist", "test")
    x = to_unit_range(torch.tensor(test.images[:8]))
    scores = model.anomaly_score(x, generator=torch.Generator().manual_seed(0))
    print("labels", test.labels[:8].tolist())
    print("-log p(x, z)", [round(score) for score in scores.tolist()])
    error = (model.reconstruct(x, steps=100) - x).square().mean()
    print(f"reconstruction MSE {error:.3f}")
    picture = write_png("latent_mle.png", image_grid(model.sample(64), columns=8))
    print("draws of the prior:", Path(picture).resolve())


if __name__ == "__main__":
    main()
