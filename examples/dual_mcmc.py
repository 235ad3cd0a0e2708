"""DualMCMCTeaching in plain PyTorch Lightning: an energy on images, a generator and an inference model.

Runs in a few seconds on a CPU, on images of 14 by 14 pixels. For visible strokes, set STEPS to 300.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from lebm.data import ImageData
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.models import ConvEncoder, ConvGenerator, GaussianLikelihood, ResNetEnergy
from lebm.plots import image_grid, write_png
from lebm.samplers import Langevin

STEPS, LATENT_DIM, SHAPE = 10, 8, [1, 14, 14]


def build() -> DualMCMCTeaching:
    """Return a model whose chain with drift step 3 and noise 1e-3 is Langevin at temperature (1e-3 / 3)^2."""
    generator = ConvGenerator(LATENT_DIM, SHAPE, channels=[32], start=7)
    return DualMCMCTeaching(
        energy=ResNetEnergy(SHAPE, channels=[8, 16]),
        likelihood=GaussianLikelihood(generator, sigma=0.212),
        encoder=ConvEncoder(LATENT_DIM, SHAPE, channels=[16, 32], end=7),
        image_sampler=Langevin(steps=10, step_size=1e-3, clamp=(-1.0, 1.0)),
        posterior_sampler=Langevin(steps=10, step_size=0.1),
        optimizer=AdamGroups(lr={"energy": 1e-4, "generator": 1e-3, "encoder": 5e-4}, betas=(0.0, 0.9)),
        temperature=(1e-3 / 3) ** 2,
        teaching_weight=0.1,
        revised_inference_weight=0.1,
        scale_likelihood=False,
    )


def main() -> None:
    """Train, and write images of the generator above the images revised by the energy."""
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
    trainer.fit(model, ImageData("embedded:mnist", image_size=14, batch_size=50))

    model.eval()
    proposed = model.sample(16, steps=0, generator=torch.Generator().manual_seed(0))
    revised = model.sample(16, generator=torch.Generator().manual_seed(0))  # the same latents, then the chain
    print("mean change of a pixel:", round((revised - proposed).abs().mean().item(), 4))
    for name, images in (("proposed", proposed), ("revised", revised)):
        print(f"energy of {name} images: {model.energy(images).mean().item():.5f}")
    picture = write_png("dual_mcmc.png", image_grid(torch.cat([proposed, revised]), columns=16))
    print("proposed above, revised below:", Path(picture).resolve())


if __name__ == "__main__":
    main()
