"""The dual-MCMC recipes: networks and constants as published, and two training steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lebm.estimators import DualMCMCTeaching
from lebm.samplers import MALA, Langevin
from tests.recipes.test_recipes import ALL, CONTENT, build, header, synthetic, two_steps


@dataclass(frozen=True)
class Networks:
    """Sizes of the three networks, in parameters, and of what they work on."""

    image: tuple[int, int, int]
    latent_dim: int
    energy: int
    generator: int
    encoder: int


@dataclass(frozen=True)
class Constants:
    """Image chain (steps, drift step, noise), weights, and what a batch is."""

    chain: tuple[int, float, float]
    teaching: float
    schedule: str
    batch_statistics: bool
    batch_size: int = 100


def energy(*channels: int, halves: tuple[bool, ...] | None = None) -> int:
    """Residual blocks without biases: two 3x3 convolutions and a 1x1 one where size or channels change; one
    linear layer.
    """
    total = channels[-1]
    for position, (before, after) in enumerate(pairwise(channels)):
        half = halves is None or halves[position]
        total += 9 * before * after + 9 * after * after + (before * after if half or before != after else 0)
    return total


def generator(latent_dim: int, start: int, *channels: int, colours: int = 3) -> int:
    """A linear layer, residual blocks with two norms and three convolutions with biases, a norm and a last
    convolution.
    """
    total = (latent_dim + 1) * channels[0] * start**2
    for before, after in pairwise(channels):
        total += (
            2 * before + (9 * before + 1) * after + 2 * after + (9 * after + 1) * after + (before + 1) * after
        )
    return total + 2 * channels[-1] + (9 * channels[-1] + 1) * colours


def encoder(
    latent_dim: int, colours: int, *channels: int, first: int, end: int = 4, head_bias: bool = False
) -> int:
    """Convolutions without biases, the first of the given kernel, the others 4x4, and two heads."""
    total = colours * channels[0] * first**2 + 2 * (channels[-1] * end**2 + head_bias) * latent_dim
    return total + sum(16 * before * after for before, after in pairwise(channels))


def transposed(latent_dim: int, start: int, *channels: int, last: int) -> int:
    kernels = [start, *[4] * (len(channels) - 2), last]
    inputs = [latent_dim, *channels[:-1]]
    return sum(
        (before * kernel**2 + 1) * after
        for before, after, kernel in zip(inputs, channels, kernels, strict=True)
    )


CELEBA = Networks(
    (3, 64, 64),
    128,
    energy(3, 64, 128, 256, 512, 1024),
    generator(128, 4, 1024, 512, 256, 128, 64),
    encoder(128, 3, 128, 256, 512, 1024, first=4, head_bias=True),
)
TABLE = {
    "cifar10": (
        Networks(
            (3, 32, 32),
            128,
            energy(3, 512, 512, 512, 512, halves=(True, True, False, False)),
            generator(128, 4, 512, 512, 512, 512),
            encoder(128, 3, 128, 256, 512, 1024, first=3, head_bias=True),
        ),
        Constants((30, 0.5, 0.001), 50.0, "alternate", True),
    ),
    "celeba64": (CELEBA, Constants((30, 0.3, 0.001), 70.0, "alternate", True)),
    "lsun_church64": (CELEBA, Constants((30, 0.3, 0.001), 70.0, "alternate", True)),
    "celebahq256": (
        Networks(
            (3, 256, 256),
            128,
            energy(3, 32, 64, 128, 256, 512, 512),
            generator(128, 4, 512, 512, 512, 256, 128, 64, 32),
            encoder(128, 3, 32, 64, 128, 256, 512, 512, first=4),
        ),
        Constants((30, 0.3, 0.001), 70.0, "alternate", False, 32),
    ),
    "fashion_mnist": (
        Networks(
            (1, 28, 28),
            32,
            energy(1, 64, 128, 128, halves=(True, True, False)),
            generator(32, 7, 128, 128, 64, colours=1),
            encoder(32, 1, 64, 128, 256, first=3, end=7),
        ),
        Constants((30, 0.5, 0.001), 50.0, "alternate", False),
    ),
    "mnist": (
        Networks(
            (1, 28, 28),
            16,
            energy(1, 8, 16, 32),
            transposed(16, 7, 64, 32, 1, last=4),
            encoder(16, 1, 16, 32, 64, first=3, end=7),
        ),
        Constants((10, 3.0, 0.001), 0.1, "simultaneous", False, 50),
    ),
    "cifar10_small": (
        Networks(
            (3, 32, 32),
            32,
            energy(3, 8, 16, 32),
            transposed(32, 8, 64, 32, 3, last=4),
            encoder(32, 3, 16, 32, 64, first=3, end=8),
        ),
        Constants((10, 3.0, 0.001), 0.1, "simultaneous", False, 50),
    ),
}
TABLE["mnist_published"] = TABLE["mnist"]
NAMES = [name for name in ALL if name.startswith("dual_mcmc/")]


def test_every_recipe_has_its_row() -> None:
    assert {name.removeprefix("dual_mcmc/") for name in NAMES} == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_networks_and_constants(name: str) -> None:
    networks, constants = TABLE[name.removeprefix("dual_mcmc/")]
    cli = build(["-c", name])
    model = cli.model
    assert isinstance(model, DualMCMCTeaching)
    images, latents = (
        torch.empty(2, *networks.image, device="meta"),
        torch.empty(2, networks.latent_dim, device="meta"),
    )
    assert model.likelihood.mean(latents).shape == images.shape
    assert model.energy(images).shape == (2,)
    assert model.encoder(images).mean.shape == latents.shape
    sizes = [sum(p.numel() for p in network.parameters()) for network in model.networks().values()]
    assert sizes == [networks.energy, networks.generator, networks.encoder]
    steps, drift, noise = constants.chain
    assert (model.image_sampler.steps, model.image_sampler.step_size) == (steps, noise)
    assert model.temperature == pytest.approx((noise / drift) ** 2, rel=1e-4)
    chain = model.posterior_sampler
    ours = {"dual_mcmc/mnist": 0.04, "dual_mcmc/cifar10_small": 0.05}
    own = (MALA, 10, ours[name]) if name in ours else (Langevin, 10, 0.1)
    assert (type(chain), chain.steps, chain.step_size) == own
    assert model.likelihood.sigma == pytest.approx(0.3 / 2**0.5, rel=1e-3)
    assert (model.teaching_weight, model.revised_inference_weight) == (constants.teaching, 0.1)
    assert (model.schedule, model.batch_statistics) == (constants.schedule, constants.batch_statistics)
    assert not model.scale_likelihood
    assert all(
        hasattr(layer, "parametrizations")
        for layer in model.energy.modules()
        if isinstance(layer, torch.nn.Conv2d)
    )
    assert cli.datamodule.batch_size == constants.batch_size
    if constants.batch_statistics:
        assert model.optimizer_settings.betas == (0.0, 0.9)
        assert model.optimizer_settings.weight_decay == {"generator": 5e-4, "encoder": 5e-4}
        assert model.optimizer_settings.lr == {"energy": 1e-4, "generator": 3e-4, "encoder": 1e-4}
    else:
        assert "ours" in "\n".join(header(name)) or "smaller width" in "\n".join(header(name))


@pytest.mark.parametrize("name", ["dual_mcmc/mnist", "dual_mcmc/cifar10"])
def test_seed_and_latent_size_reach_every_part(name: str) -> None:
    cli = build(["-c", name, "--seed_everything", "7", "--latent_dim", "5"])
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)
    assert cli.model.likelihood.latent_dim == cli.model.encoder.latent_dim == 5


def narrow(name: str) -> list[str]:
    """Overrides: published depth, a few channels."""
    arguments = CONTENT[name]["model"]["init_args"]
    paths = {
        "energy": arguments["energy"],
        "likelihood.init_args.generator": arguments["likelihood"]["init_args"]["generator"],
        "encoder": arguments["encoder"],
    }
    words = []
    for path, network in paths.items():
        widths = [max(4, width // 128) for width in network["init_args"]["channels"]]
        words.append(f"--model.init_args.{path}.init_args.channels={widths}")
    return words


CHAINS = ("image", "posterior")


FAST = ("dual_mcmc/mnist", "dual_mcmc/cifar10")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_two_steps_of_training(name: str, tmp_path: Path) -> None:
    words = ["-c", name, *narrow(name), *synthetic(name, tmp_path / "data")]
    if name.startswith("dual_mcmc/celebahq256"):
        words.append("--trainer.callbacks=null")
    summary = two_steps(words, tmp_path / "run", chains=CHAINS)
    assert summary["status"] == "finished"
    assert summary["steps"] == 2
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dual_mcmc/mnist", "dual_mcmc/fashion_mnist", "dual_mcmc/cifar10_small"])
def test_two_steps_at_full_width(name: str, tmp_path: Path) -> None:
    words = [
        "-c",
        name,
        *synthetic(name, tmp_path / "data"),
        "--trainer.callbacks=null",
        "--trainer.enable_checkpointing=false",
    ]
    assert two_steps(words, tmp_path / "run", chains=CHAINS)["steps"] == 2
