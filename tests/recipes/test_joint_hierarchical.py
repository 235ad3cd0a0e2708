"""The recipes of the joint hierarchical prior: networks and constants as published, two training steps."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lebm.estimators import JointHierarchicalPrior
from lebm.inference import Frozen, ShortRun, Variational
from lebm.samplers import Langevin
from tests.recipes.published import linear, transposed
from tests.recipes.test_recipes import ALL, CONTENT, build, header, synthetic, two_steps

NAMES = [
    name
    for name in ALL
    if name.startswith("joint_hierarchical/") and CONTENT[name]["data"]["class_path"] == "ImageData"
]


def conv(*layers: tuple[int, int, int]) -> int:
    """Convolutions without biases: channels before, channels after, kernel."""
    return sum(before * after * kernel**2 for before, after, kernel in layers)


def spread(latent_dims: list[int], *sizes: int) -> int:
    """The linear maps of the layers below the top, bottom first, to what they join."""
    return sum(linear(dim, size) for dim, size in zip(latent_dims, sizes, strict=False))


def heads(latent_dims: list[int], *sizes: int) -> int:
    """Mean and log-variance of every layer from what it reads."""
    return sum(linear(size, 2 * dim) for dim, size in zip(latent_dims, sizes, strict=True))


def energy(latent_dim: int, *hidden: int) -> int:
    return linear(latent_dim, *hidden, 1) - 1


def chain(*dims: int) -> int:
    """Four layers of 200 between each pair."""
    return sum(linear(above, 200, 200, 200, 200, 2 * below) for below, above in pairwise(dims))


TEN = [10] * 5
SAMPLES = {
    "generator": (
        spread(TEN, 256 * 16**2, 256 * 8**2, 512 * 4**2, 1024 * 2**2)
        + linear(10, 2048, 2048, 1024 * 4)
        + conv((2048, 1024, 3), (1024, 512, 4), (512, 512, 3), (1024, 512, 3), (512, 256, 4), (256, 256, 3))
        + conv(
            (512, 256, 3),
            (256, 256, 4),
            (256, 256, 3),
            (512, 256, 3),
            (256, 128, 4),
            (128, 128, 3),
            (128, 3, 3),
        )
    ),
    # every branch stands beside the trunk
    "encoder": (
        2
        * conv(
            (3, 128, 4),
            (128, 128, 3),
            (128, 256, 4),
            (256, 256, 3),
            (256, 256, 4),
            (256, 256, 3),
            (256, 512, 4),
            (512, 512, 3),
        )
        + linear(2048, 1024, 1024)
        + heads(TEN, 32768, 16384, 4096, 2048, 1024)
    ),
    "energy": energy(50, 100, 100),
}
SHORT = [2, 2, 2, 10]
HIERARCHY = {
    "generator": (
        spread(SHORT, 32 * 16**2, 64 * 8**2, 64)
        + linear(10, 256, 256, 64)
        + linear(64, 64 * 4**2)
        + conv((64, 64, 4), (64, 64, 3), (64, 64, 4), (64, 32, 3), (32, 32, 4), (32, 3, 3))
    ),
    "encoder": (
        2 * conv((3, 32, 4), (32, 32, 3), (32, 64, 4), (64, 64, 3), (64, 64, 4), (64, 64, 3))
        + linear(64 * 4**2, 256, 256)
        + heads(SHORT, 32 * 16**2, 64 * 8**2, 64 * 4**2, 256)
    ),
    "energy": energy(16, 50, 50, 50, 50),
}
PUBLISHED = {
    "svhn": (SAMPLES, (100, 0.3)),
    "cifar10": (SAMPLES, (100, 0.3)),
    "svhn_hierarchical_sampling": (HIERARCHY, (60, 0.4)),
    "cifar10_conditional": (
        {
            "generator": transposed(128, 8, 1024, 512, 256, 3, last=3),
            "energy": energy(128, 200, 200, 200) + energy(100, 100, 100),
            "reference": chain(128, 100),
        },
        (60, 0.4),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_and_chains_are_the_released_ones(name: str) -> None:
    sizes, (steps, step_size) = PUBLISHED[name]
    model = build(["-c", f"joint_hierarchical/{name}"]).model
    assert isinstance(model, JointHierarchicalPrior)
    if name in ("svhn", "svhn_hierarchical_sampling", "cifar10"):
        # a concatenation makes the merged image twice as wide only where it is a concatenation
        assert model.likelihood.generator.merge == ("add" if name.endswith("sampling") else "concat")
        assert 1 / (2 * model.likelihood.sigma**2) == pytest.approx(
            3 if name.endswith("sampling") else 10, rel=1e-5
        )
        assert model.optimizer_settings.betas == (0.0, 0.9)
        assert model.optimizer_settings.weight_decay == {"generator": 5e-4, "encoder": 5e-4}
        assert all(
            hasattr(layer, "parametrizations")
            for layer in model.prior.tilt.modules()
            if isinstance(layer, torch.nn.Linear)
        )
    assert {
        part: sum(p.numel() for p in network.parameters()) for part, network in model.networks().items()
    } == sizes
    assert isinstance(model.prior_sampler, Langevin)
    assert (model.prior_sampler.steps, model.prior_sampler.step_size) == (steps, step_size)
    if isinstance(model.inference, ShortRun):
        assert (model.posterior_sampler.steps, model.posterior_sampler.step_size) == (40, 0.1)
        assert model.likelihood.sigma == 0.3


@pytest.mark.parametrize("name", NAMES)
def test_seed_and_layers_reach_every_part(name: str) -> None:
    cli = build(["-c", name, "--seed_everything", "7"])
    model = cli.model
    assert isinstance(model, JointHierarchicalPrior)
    assert (model.seed, cli.datamodule.seed) == (7, 7)
    assert len(model.layout) > 1
    assert model.layout.latent_dim == model.likelihood.latent_dim == model.prior.latent_dim
    image = (cli.config.data.init_args.channels, *[cli.config.data.init_args.image_size] * 2)
    latents = torch.empty(2, model.latent_dim, device="meta")
    assert model.likelihood.mean(latents).shape == (2, *image)
    assert (
        model.encoder is None
        or model.encoder(torch.empty(2, *image, device="meta")).mean.shape == latents.shape
    )
    expected: type = Variational
    if name.endswith("_conditional"):
        expected = ShortRun
    elif name.endswith("_two_stage"):
        expected = Frozen
    assert type(model.inference) is expected
    assert (
        "ours" in "\n".join(header(name))
        or "released" in "\n".join(header(name))
        or "As joint" in "\n".join(header(name))
        or "Settings as" in ("\n".join(header(name)))
    )


def test_every_layer_size_of_a_recipe_follows_one_flag() -> None:
    model = build(["-c", "joint_hierarchical/mnist", "--latent_dims", "[3,1,4]"]).model
    assert model.layout.sizes == model.encoder.layout.sizes == [3, 1, 4]
    assert model.prior.tilt.latent_dim == 8


def narrower(word: str, keep: bool) -> str:
    """A sixteenth of the channels or numbers; the last layer of a generator stays."""
    if keep:
        return word
    return re.sub(r" (\d+)", lambda found: f" {max(4, int(found.group(1)) // 16)}", word)


def narrow(name: str) -> list[str]:
    """Overrides: published depth, little width."""
    arguments = CONTENT[name]["model"]["init_args"]
    words = []
    for path, network, is_generator in (
        ("likelihood.init_args.generator", arguments["likelihood"]["init_args"]["generator"], True),
        ("encoder", arguments.get("encoder", {"init_args": {}}), False),
    ):
        settings = network["init_args"]
        if "generator" in settings:
            widths = [max(4, width // 64) for width in settings["generator"]["init_args"]["channels"]]
            words.append(f"--model.init_args.{path}.init_args.generator.init_args.channels={widths}")
        if "blocks" in settings:
            blocks = [
                [narrower(word, is_generator and layer == 0 and word is block[-1]) for word in block]
                for layer, block in enumerate(settings["blocks"])
            ]
            words.append(f"--model.init_args.{path}.init_args.blocks={json.dumps(blocks)}")
    if "train_split" in CONTENT[name]["data"]["init_args"]:
        words.append("--data.init_args.train_split=train")
    return words


QUICK = {
    "joint_hierarchical/mnist",
    "joint_hierarchical/svhn_hierarchical_sampling",
    "joint_hierarchical/mnist_two_stage",
}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_two_steps_of_training(name: str, tmp_path: Path) -> None:
    words = ["-c", name, *narrow(name), *synthetic(name, tmp_path / "data")]
    chains = ("prior", "posterior") if name.endswith("_conditional") else ("prior",)
    if name.endswith("_two_stage"):
        first = name.replace("_two_stage", "_vae")
        bare = ["--trainer.callbacks=null"]
        two_steps(
            ["-c", first, *narrow(first), *bare, *synthetic(first, tmp_path / "first")],
            tmp_path / "backbone",
            chains,
        )
        words.append(f"--model.init_args.inference.init_args.backbone={tmp_path / 'backbone'}")
    summary = two_steps(words, tmp_path / "run", chains)
    assert summary["status"] == "finished"
    assert summary["steps"] == 2
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    if name.endswith("_two_stage"):
        trained, frozen = (
            JointHierarchicalPrior.load_from_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")
            for run in ("run", "backbone")
        )
        for part in ("likelihood", "encoder", "reference"):
            theirs = getattr(frozen, part).state_dict()
            assert all(
                torch.equal(value, theirs[key]) for key, value in getattr(trained, part).state_dict().items()
            )


def test_a_backbone_that_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lebm.cli.dispatch import run

    words = [
        "fit",
        "-c",
        "joint_hierarchical/mnist_two_stage",
        "--data.init_args.path",
        "embedded:mnist",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    assert run([*words, "--model.init_args.inference.init_args.backbone", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such run folder or checkpoint" in capsys.readouterr().err
