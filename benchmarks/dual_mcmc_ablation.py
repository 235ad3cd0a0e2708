"""Chain lengths, starts and schedules of DualMCMCTeaching beside each other, on 14 px digits: seconds a
setting. With --numerals, what might let the energy tell digits from digits upside down.

    python -m benchmarks.dual_mcmc_ablation --steps 300
    python -m benchmarks.dual_mcmc_ablation --steps 1000 --numerals

Every setting trains the same small networks on the embedded digits from the same weights, data and seed.
Printed are: squared error of test reconstructions by inference alone and after 10 posterior steps; Fréchet
distance of 1,000 samples from 1,000 test digits, in the digit features, of the generator's own samples and of
revised ones (10 steps); with --numerals the AUROC of the energy for the same digits upside down and turned by
a quarter. One run each, so small differences mean nothing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

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
NUMERALS: dict[str, dict[str, Any]] = {
    "as in dual_mcmc/mnist_published": {},
    "noise of .1 on training images": {"noise": 0.1},
    "noise of .3 on training images": {"noise": 0.3},
    "an energy that sees the whole image": {"channels": [8, 16, 32], "halves": [True, True, True]},
    "an energy with twice the channels": {"channels": [16, 32, 64]},
    "an energy with four blocks": {"channels": [8, 16, 32, 32], "halves": [True, True, False, False]},
    "image chain of 30 steps": {"image_steps": 30},
    "no teaching (both weights 0)": OFF,
}


def model_of(
    image_steps: int = 10,
    latent_steps: int = 10,
    pool: bool = False,
    channels: Sequence[int] = (8, 16, 32),
    halves: Sequence[bool] = (True, True, False),
    **settings: Any,
) -> DualMCMCTeaching:
    torch.manual_seed(0)
    chain: Sampler = Langevin(image_steps, NOISE, clamp=(-1.0, 1.0))
    defaults = {"teaching_weight": 0.1, "revised_inference_weight": 0.1}
    return DualMCMCTeaching(
        ResNetEnergy(SHAPE, channels, halves),
        GaussianLikelihood(MLPGenerator(LATENT, SHAPE, hidden=[128, 128]), 0.212),
        MLPEncoder(LATENT, SHAPE, hidden=[128, 128]),
        PersistentChains(chain, slots=10, restart_rate=0.05) if pool else chain,
        Langevin(latent_steps, 0.1),
        AdamGroups({"energy": 1e-4, "generator": 1e-3, "encoder": 5e-4}, betas=(0.0, 0.9)),
        temperature=(NOISE / 3.0) ** 2,
        scale_likelihood=False,
        **(defaults | settings),
    )


def train(model: DualMCMCTeaching, data: torch.Tensor, steps: int, noise: float = 0.0) -> None:
    """The Trainer's two turns a batch, or one, without the Trainer."""
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    rows = torch.Generator().manual_seed(0)
    for number in range(steps):
        x = data[torch.randint(len(data), (BATCH,), generator=rows)]
        if noise:
            x = x + noise * torch.randn(x.shape, generator=rows)
        for _ in model.updates():
            loss = model.loss({"x": x}, number)
            optimizer.zero_grad()
            loss.backward()
            model.on_before_optimizer_step(optimizer)
            optimizer.step()


@torch.no_grad()
def figures(model: DualMCMCTeaching, test: torch.Tensor, extractor: DigitFeatures) -> list[float]:
    model.eval()
    real, errors, distances = extractor(test).double(), [], []
    for steps in (0, 10):
        noise = Noise.samples(0, "encode", index=range(len(test)))
        errors.append(float((model.reconstruct(test, steps=steps, generator=noise) - test).square().mean()))
        fake = extractor(model.sample(len(test), steps=steps, generator=Noise([(0,)])).clamp(-1, 1)).double()
        distances.append(float(frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())))
    return errors + distances


@torch.no_grad()
def numerals(model: DualMCMCTeaching, test: torch.Tensor) -> list[float]:
    """AUROC of the energy for the test digits upside down, and turned by a quarter."""
    known = model.energy(test)
    others = [model.energy(turned.contiguous()) for turned in (test.flip(2), test.rot90(1, (2, 3)))]
    labels = torch.cat([torch.zeros(len(test)), torch.ones(len(test))])
    return [float(roc_auc_score(labels, torch.cat([known, other]))) for other in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--numerals", action="store_true")
    options = parser.parse_args()
    data = ImageData("embedded:mnist", image_size=14, batch_size=BATCH)
    data.setup()
    train_images, test = (
        rows.images(slice(0, n)).float() / 127.5 - 1 for rows, n in ((data.train, 8000), (data.test, 1000))
    )
    head = ["MSE, inference", "MSE, + 10 steps", "Fréchet, generator", "Fréchet, revised"]
    head += ["AUROC, upside down", "AUROC, turned"] if options.numerals else []
    print(" | ".join(["setting", *head, "CPU s"]))
    for name, settings in (NUMERALS if options.numerals else SETTINGS).items():
        chosen = dict(settings)
        noise = chosen.pop("noise", 0.0)
        model, started = model_of(**chosen), time.process_time()
        train(model, train_images, options.steps, noise)
        seconds = time.process_time() - started
        values = figures(model, test, DigitFeatures()) + (numerals(model, test) if options.numerals else [])
        print(" | ".join([name, *(f"{value:.4g}" for value in values), f"{seconds:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
