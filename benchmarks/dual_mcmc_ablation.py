"""Chain lengths, starts and schedules of DualMCMCTeaching beside each other, on 14 px digits: seconds a
setting.

    python -m benchmarks.dual_mcmc_ablation --steps 300 --out results/dual_mcmc_ablation.md

Every setting trains the same small networks on the embedded digits from the same weights, data and seed.
Columns: squared error of test reconstructions by inference alone and after 10 posterior steps; Fréchet
distance of 1,000 samples from 1,000 test digits, in the digit features, of the generator's own samples and of
revised ones (10 steps). One run each, so small differences mean nothing."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import machine
from lebm.data import ImageData
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.metrics import DigitFeatures, frechet_distance
from lebm.models import GaussianLikelihood, MLPEncoder, MLPGenerator, ResNetEnergy
from lebm.samplers import Langevin, Noise, PersistentChains, Sampler

SHAPE, LATENT, BATCH, NOISE = [1, 14, 14], 8, 50, 0.001
OFF = {"teaching_weight": 0.0, "revised_inference_weight": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "as in dual_mcmc/mnist_published": {},
    "image chain of 3 steps": {"image_steps": 3},
    "image chain of 30 steps": {"image_steps": 30},
    "posterior chain of 3 steps": {"latent_steps": 3},
    "posterior chain from N(0, I)": {"latent_start": "prior"},
    "schedule: alternate": {"schedule": "alternate"},
    "teaching weight 1": {"teaching_weight": 1.0},
    "teaching weight 10": {"teaching_weight": 10.0},
    "no teaching (both weights 0)": OFF,
    "image chains from noise": {"image_start": "noise", **OFF},
    "persistent image chains": {"pool": True, **OFF},
}


def model_of(
    image_steps: int = 10, latent_steps: int = 10, pool: bool = False, **settings: Any
) -> DualMCMCTeaching:
    torch.manual_seed(0)
    chain: Sampler = Langevin(image_steps, NOISE, clamp=(-1.0, 1.0))
    defaults = {"teaching_weight": 0.1, "revised_inference_weight": 0.1}
    return DualMCMCTeaching(
        ResNetEnergy(SHAPE, [8, 16, 32], [True, True, False]),
        GaussianLikelihood(MLPGenerator(LATENT, SHAPE, hidden=[128, 128]), 0.212),
        MLPEncoder(LATENT, SHAPE, hidden=[128, 128]),
        PersistentChains(chain, slots=10, restart_rate=0.05) if pool else chain,
        Langevin(latent_steps, 0.1),
        AdamGroups({"energy": 1e-4, "generator": 1e-3, "encoder": 5e-4}, betas=(0.0, 0.9)),
        temperature=(NOISE / 3.0) ** 2,
        scale_likelihood=False,
        **(defaults | settings),
    )


def train(model: DualMCMCTeaching, data: torch.Tensor, steps: int) -> None:
    """The Trainer's two turns a batch, or one, without the Trainer."""
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    rows = torch.Generator().manual_seed(0)
    for number in range(steps):
        x = data[torch.randint(len(data), (BATCH,), generator=rows)]
        for _ in model.updates():
            loss = model.loss({"x": x}, number)
            optimizer.zero_grad()
            loss.backward()
            model.on_before_optimizer_step(optimizer)
            optimizer.step()


@torch.no_grad()
def figures(model: DualMCMCTeaching, test: torch.Tensor, extractor: DigitFeatures) -> list[float]:
    model.eval()
    errors = [
        (
            model.reconstruct(test, steps=steps, generator=Noise.samples(0, "encode", index=range(len(test))))
            - test
        )
        .square()
        .mean()
        .item()
        for steps in (0, 10)
    ]
    real = extractor(test).double()
    distances = []
    for steps in (0, 10):
        fake = extractor(model.sample(len(test), steps=steps, generator=Noise([(0,)])).clamp(-1, 1)).double()
        distances.append(float(frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())))
    return errors + distances


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = ImageData("embedded:mnist", image_size=14, batch_size=BATCH)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    train_images, test = (
        rows.images(slice(0, n)).float() / 127.5 - 1 for rows, n in ((data.train, 8000), (data.test, 1000))
    )
    lines = [f"{options.steps} steps of {BATCH}; {machine()}.", ""]
    lines += [
        "| setting | MSE, inference | MSE, + 10 steps | Fréchet, generator | Fréchet, revised | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for name, settings in SETTINGS.items():
        model, started = model_of(**settings), time.process_time()
        train(model, train_images, options.steps)
        seconds = time.process_time() - started
        alone, revised, generator, ebm = figures(model, test, DigitFeatures())
        lines.append(
            f"| {name} | {alone:.4f} | {revised:.4f} | {generator:.0f} | {ebm:.0f} | {seconds:.0f} |"
        )
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
