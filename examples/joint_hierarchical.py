"""JointHierarchicalPrior in plain PyTorch Lightning: one energy on all layers of a ladder.

Without the energy this is a ladder VAE. Runs in a few seconds on a CPU; for readable digits, set STEPS to
3000.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from lebm.data import ImageData, open_images, to_unit_range
from lebm.estimators import AdamGroups, JointHierarchicalPrior
from lebm.inference import Variational
from lebm.models import ConcatenatedEnergy, EnergyPrior, GaussianLikelihood, LadderEncoder, LadderGenerator
from lebm.plots import image_grid, write_png
from lebm.samplers import Langevin

STEPS, LATENT_DIMS, SHAPE = 40, [2, 2, 2], [1, 28, 28]


def build() -> JointHierarchicalPrior:
    """Return a model with three layers of two coordinates; layer 1 is nearest to the image."""
    up = [["linear 784"], ["linear 256"], ["linear 256", "linear 256"]]
    down = [["linear 256"], ["linear 256"], ["linear 256", "linear 256"]]
    generator = LadderGenerator(LATENT_DIMS, SHAPE, up, merge="gated_add", projection_activation=False)
    return JointHierarchicalPrior(
        likelihood=GaussianLikelihood(generator, sigma=0.5),
        prior=EnergyPrior(ConcatenatedEnergy(LATENT_DIMS, hidden=[100, 100])),
        prior_sampler=Langevin(steps=60, step_size=0.4),
        optimizer=AdamGroups(lr={"generator": 1e-3, "encoder": 1e-3, "energy": 1e-3}),
        inference=Variational(
            LadderEncoder(LATENT_DIMS, SHAPE, down, separate=False, activation="leaky_relu")
        ),
    )


def main() -> None:
    """Train, and draw new top layers for the bottom layers of one image."""
    seed_everything(0, verbose=False)
    model = build()
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
    x = to_unit_range(torch.tensor(open_images("embedded:mnist", "test").images[:1]))
    z = model.encode(x).expand(64, -1)
    bottom, *others = model.layout.split(z)
    *_, top = model.layout.split(model.sample_latent(64))
    mixed = model.layout.join([bottom, *others[:-1], top])
    print("layers, bottom first:", [layer.shape[1] for layer in (bottom, *others)])
    print("energy of the encoding:", round(model.prior.energy(z[:1]).item(), 3))
    picture = write_png("joint_hierarchical.png", image_grid(model.decode(mixed), columns=8))
    print("new top layers:", Path(picture).resolve())


if __name__ == "__main__":
    main()
