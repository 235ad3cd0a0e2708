"""Groups of training steps: compared with released loops, by stage, in a Trainer, and of every recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

import lebm
from benchmarks.chains import SIGMA, staged_prior
from benchmarks.rivals import (
    PlainText,
    Potential,
    PublishedLoop,
    ReleasedTeaching,
    Variants,
    check_agreement,
    peers,
    plain_energy,
    plain_generator,
    same_size,
)
from lebm.config import recipes
from lebm.estimators import AdamGroups, DualMCMCTeaching, FixedStages, LatentMLE, LatentModel, MultiStageNCE
from lebm.models import (
    CategoricalLikelihood,
    ConvEncoder,
    ConvGenerator,
    EnergyPrior,
    GaussianLikelihood,
    MLPEnergy,
    MLPGenerator,
    RecurrentGenerator,
    ResNetEnergy,
    ResNetGenerator,
    frozen,
)
from lebm.models.observations import event_shape
from lebm.models.text_likelihood import PAD, UNKNOWN
from lebm.samplers import Boltzmann, Langevin

LATENT, BATCH = 100, 100
SIZES: dict[str, tuple[list[int], list[int], int]] = {
    "28-16": ([1, 28, 28], [32, 16], 7),
    "28-64": ([1, 28, 28], [128, 64], 7),
    "32-64": ([3, 32, 32], [512, 256, 128], 4),
}
"""Shape of images, hidden channels of the generator, and its first size."""
TEACHING: dict[str, dict[str, Any]] = {
    "28-small": {"image": [1, 28, 28], "energy": [8, 16, 32], "encoder": [16, 32, 64], "end": 7, "batch": 50},
    "32-32": {"image": [3, 32, 32], "energy": [32] * 4, "encoder": [32, 64, 128], "end": 8, "batch": 20},
}
TEXTS = {"small": (128, 128, 2000, 20, 32, 8), "paper": (128, 512, 10000, 40, 64, 20)}
"""Embedding, hidden units, words, longest sentence, batch, and steps of the posterior chain."""


def batch_of(model: LatentModel, rows: int, device: str) -> dict[str, Tensor]:
    """Return a batch without content: grey images, points at 0, or sentences of full length."""
    index = torch.arange(rows, device=device)
    shape = event_shape(model.likelihood)
    if shape is not None:
        return {"x": torch.zeros(rows, *shape, device=device), "index": index}
    assert isinstance(model.likelihood, CategoricalLikelihood)
    length = model.likelihood.generator.max_length
    return {"x": torch.full((rows, length), UNKNOWN, device=device), "index": index}


def stepper(model: LatentModel, batch: dict[str, Tensor], steps: int = 1) -> Callable[[], None]:
    """Return a function that runs training steps of a model on one batch, without a Trainer."""
    optimizer, _ = model.train().optimizer_settings.build(model.networks(), fused=True, epochs=1)
    numbers = iter(range(10**9))

    def step() -> None:
        for _ in range(steps):
            number = next(numbers)
            for _ in model.updates():
                optimizer.zero_grad()
                loss = model.loss(batch, number)
                if loss.requires_grad:  # an energy alone does not learn before its base is fitted
                    loss.backward()
                model.on_before_optimizer_step(optimizer)
                optimizer.step()

    return step


def latent_mle(size: str, device: str) -> Variants:
    """Build a step of `LatentMLE`: latent 100, 60 prior steps, 20 posterior steps, batch 100."""
    shape, channels, start = SIZES[size]
    generator, energy = plain_generator(LATENT, shape, channels).to(device), plain_energy(LATENT).to(device)
    published, x = PublishedLoop(generator, energy), torch.rand(BATCH, *shape, device=device) * 2 - 1
    variants: Variants = {"published": lambda: published.step(x, LATENT)}
    modes: dict[str, dict[str, Any]] = {"eager": {}, "compiled": {"compile": True, "compile_mode": "default"}}
    if device.startswith("cuda"):
        modes["compiled, CUDA graphs"] = {"compile": True}
    for name, mode in modes.items():
        likelihood = GaussianLikelihood(ConvGenerator(LATENT, shape, channels, start=start), SIGMA)
        same_size(likelihood, generator)
        samplers = Langevin(60, 0.4, **mode), Langevin(20, 0.1, **mode, **({"unroll": 1} if mode else {}))
        rates = AdamGroups({"generator": 1e-4, "energy": 2e-5})
        model = LatentMLE(likelihood, EnergyPrior(MLPEnergy(LATENT)), *samplers, rates).to(device)
        variants[name] = stepper(model, {"x": x})
    return variants


def teaching(size: str, part: str, device: str) -> Variants:
    """Build a step of `DualMCMCTeaching`, or a chain: spectral norm, 30 image and 10 latent steps."""
    torch.manual_seed(0)
    chosen, latent, noise, drift = TEACHING[size], 32, 0.001, 0.5
    shape, halves = chosen["image"], [position < 2 for position in range(len(chosen["energy"]))]
    generator: Any = ConvGenerator(latent, shape, [64, 32], start=7)
    if size == "32-32":
        generator = ResNetGenerator(latent, shape, [32] * 4, start=4)
    model = DualMCMCTeaching(
        ResNetEnergy(shape, chosen["energy"], halves),
        GaussianLikelihood(generator, 0.212),
        ConvEncoder(latent, shape, chosen["encoder"], end=chosen["end"]),
        Langevin(30, noise),
        Langevin(10, 0.1),
        AdamGroups({"energy": 1e-4, "generator": 3e-4, "encoder": 1e-4}, betas=(0.0, 0.9)),
        temperature=(noise / drift) ** 2,
        teaching_weight=50.0,
        revised_inference_weight=0.1,
        scale_likelihood=False,
        batch_statistics=True,
    ).to(device)
    twin = copy.deepcopy(model)
    released = ReleasedTeaching(twin.energy, twin.likelihood.generator, twin.encoder)
    x = torch.rand(chosen["batch"], *shape, device=device) * 2 - 1
    z = torch.randn(len(x), latent, device=device)
    target = Boltzmann(model.energy, model.temperature)

    def frozen_chain(chain: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:  # normalises weights once, as other libraries can
            with frozen(model.energy), frozen(model.likelihood, batch_statistics=True):
                return chain()

        return run

    if part == "step":
        return {"released": lambda: released.step(x, latent), "lebm": stepper(model, {"x": x})}
    if part == "image-chain":
        theirs = peers(Potential(target, model.energy), noise, 30, x)
        chains = {"lebm": lambda: model.image_sampler(target, x), **theirs}
        variants = {"released": lambda: released.revise_images(x)}
    else:
        chains = {"lebm": lambda: model.posterior_sampler(model.posterior(x), z)}
        variants = {"released": lambda: released.revise_latents(z, x)}
    variants |= {name: frozen_chain(chain) for name, chain in chains.items()}
    check_agreement(variants)
    return {**variants}


def text(size: str, mixed: bool, device: str) -> Variants:
    """Build a step of `LatentMLE` on sentences of one length, or of lengths from 1 to the longest."""
    embedding, hidden, words, longest, rows, steps = TEXTS[size]
    torch.manual_seed(0)
    generator = RecurrentGenerator(32, words, longest, embedding, hidden)
    model = LatentMLE(
        CategoricalLikelihood(generator),
        EnergyPrior(MLPEnergy(32, [200, 200])),
        Langevin(40, 0.5),
        Langevin(steps, 0.5),
        AdamGroups({"generator": 1e-3, "energy": 1e-4}),
    ).to(device)
    twin, source = copy.deepcopy(model), torch.Generator().manual_seed(0)
    plain = PlainText(twin.likelihood.generator, twin.prior.tilt, steps)
    x = torch.randint(4, words, (rows, longest), generator=source)
    if mixed:
        lengths = torch.randint(1, longest + 1, (rows, 1), generator=source)
        x = torch.where(torch.arange(longest) < lengths, x, PAD)
    x, z = x.to(device), torch.randn(rows, 32, device=device)
    with torch.no_grad():
        same = model.likelihood.log_prob(x, z), plain.log_prob(x, z)
    torch.testing.assert_close(*same, rtol=1e-4, atol=1e-3)
    batch = {"x": x, "index": torch.arange(rows)}
    return {"plain": lambda: plain.step(x, 32), "lebm": stepper(model, batch)}


def by_stage(device: str) -> Variants:
    """Build steps of `LatentMLE` and of `MultiStageNCE` with finished stages, at the size for MNIST."""
    chains, rates = (Langevin(60, 0.4), Langevin(20, 0.1)), AdamGroups({"generator": 1e-3, "energy": 1e-3})

    def likelihood() -> GaussianLikelihood:
        return GaussianLikelihood(MLPGenerator(8, [1, 28, 28]), SIGMA)

    models: dict[str, LatentModel] = {
        "LatentMLE": LatentMLE(likelihood(), EnergyPrior(MLPEnergy(8)), *chains, rates)
    }
    for count in (0, 1, 3, 7):
        prior, rule = staged_prior(count, 8, 200), FixedStages(10**9)
        model = MultiStageNCE(likelihood(), prior, *chains, rates, rule)
        models[f"MultiStageNCE, {count} finished"] = model
    batch = {"x": torch.rand(BATCH, 1, 28, 28, device=device) * 2 - 1, "index": torch.arange(BATCH)}
    return {name: stepper(model.to(device), batch) for name, model in models.items()}


def trainer(device: str, steps: int = 500) -> Variants:
    """Build steps of a small model, which show the overhead of the Trainer."""

    def tiny() -> LatentMLE:
        likelihood = GaussianLikelihood(MLPGenerator(4, [16], hidden=[16], output="linear"))
        prior, rates = EnergyPrior(MLPEnergy(4, hidden=[16])), AdamGroups({"generator": 1e-4, "energy": 2e-5})
        return LatentMLE(likelihood, prior, Langevin(2, 0.4), Langevin(2, 0.1), rates)

    def fit() -> None:
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        kind = "gpu" if device.startswith("cuda") else "cpu"
        one = Trainer(max_epochs=1, accelerator=kind, devices=1, **dict.fromkeys(off, False))
        one.fit(tiny(), DataLoader([{"x": x.cpu()}] * steps, batch_size=None))

    x = torch.rand(BATCH, 16, device=device)
    plain = stepper(tiny().to(device), {"x": x}, steps)
    return {f"{steps} steps": plain, f"{steps} steps in the Trainer": fit}


def recipe(name: str, device: str) -> Variants:
    """Build a training step of a recipe at its batch size, on rows without content."""
    model, data = lebm.from_recipe(name)
    return {"step": stepper(model.to(device), batch_of(model, data.batch_size, device))}


EXPERIMENTS = [name for name in recipes.names() if not name.startswith(("loggers/", "inference/", "prior/"))]
"""Recipes that train a model by themselves, without the overlays."""
GROUPS: dict[str, Callable[[str], Variants]] = {
    **{f"steps/lebm-{size}": partial(latent_mle, size) for size in SIZES},
    **{f"dual_mcmc/{size}/step": partial(teaching, size, "step") for size in TEACHING},
    **{f"dual_mcmc/{size}/image-chain": partial(teaching, size, "image-chain") for size in TEACHING},
    **{f"dual_mcmc/{size}/posterior-chain": partial(teaching, size, "posterior-chain") for size in TEACHING},
    **{f"text/{size}/equal": partial(text, size, False) for size in TEXTS},
    **{f"text/{size}/mixed": partial(text, size, True) for size in TEXTS},
    "steps/by-stage": by_stage,
    "steps/trainer": trainer,
    **{f"recipes/{name}": partial(recipe, name) for name in EXPERIMENTS},
}
"""Builders of the groups on a device, by name."""
