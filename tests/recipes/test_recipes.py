"""Every recipe, found by walking the folder: its networks at full width, and two steps of training.

A new recipe needs no entry here. One that rebuilds published networks gets a line in ``PUBLISHED``.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import _SpectralNorm

import lebm
from lebm.cli.dispatch import run
from lebm.config import recipes
from lebm.config.parser import RecipeCLI
from lebm.config.recipes import merged, read
from lebm.config.request import read_request
from lebm.data import ImageData
from lebm.estimators.prior_model import PriorModel
from tests.conftest import png, write_parquet
from tests.recipes.published import PUBLISHED

ALL = recipes.names()
LOGGERS = [name for name in ALL if name.startswith("loggers/")]
PARTS = [name for name in ALL if name.startswith(("inference/", "prior/"))]  # test_overlays.py
OVERLAYS = [*LOGGERS, *PARTS]
ROWS = ["multistage_nce/toy2d", "latent_mle/vectors", "multistage_nce/vectors"]  # no images: own tests
DUAL = [name for name in ALL if name.startswith("dual_mcmc/")]  # test_dual_mcmc.py
JOINT = [name for name in ALL if name.startswith("joint_hierarchical/")]  # test_joint_hierarchical.py
CONTENT = {name: merged(read(path))[0] for name, path in ALL.items()}
TEXT = [  # test_text.py
    name for name in ALL if CONTENT[name].get("data", {}).get("class_path") == "TextData"
]
BASELINES = [name for name in ALL if name.startswith("baselines/")]  # test_baselines.py
EXPERIMENTS = [name for name in ALL if name not in (*OVERLAYS, *ROWS, *DUAL, *JOINT, *TEXT, *BASELINES)]
GENERATOR = "--model.init_args.likelihood.init_args.generator.init_args"
ENERGY = "--model.init_args.prior.init_args.energy.init_args"


def build(words: list[str]) -> RecipeCLI:
    """Parse as the command line does, and build networks without memory.

    Equal words give the same object, which no test changes. The power iterations of spectral norms are left
    out: they have no values to work on, and take longer than all else.
    """
    return _built(tuple(words))


@functools.cache
def _built(words: tuple[str, ...]) -> RecipeCLI:
    with torch.device("meta"), mock.patch.object(_SpectralNorm, "_power_method"):
        return RecipeCLI(read_request("fit", list(words)), trainer_too=False)


def header(name: str) -> list[str]:
    lines = ALL[name].read_text().splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def test_the_folder_was_walked() -> None:
    assert {"quickstart", "latent_mle/svhn", "loggers/wandb"} <= set(ALL)
    files = {path for path in recipes.folder().rglob("*") if path.suffix in (".yaml", ".yml")}
    assert files == {*ALL.values(), *recipes.blocks().values()}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_networks_fit_the_data(name: str) -> None:
    cli = build(["-c", name])
    model, data = cli.model, cli.datamodule
    assert isinstance(model, PriorModel)
    assert isinstance(data, ImageData)
    settings = cli.config.data.init_args
    latents = torch.empty(2, model.latent_dim, device="meta")
    assert model.likelihood.mean(latents).shape == (
        2,
        settings.channels,
        settings.image_size,
        settings.image_size,
    )
    assert model.prior.energy(latents).shape == (2,)
    assert (data.seed, model.seed) == (cli.config.seed_everything,) * 2


def test_published_recipes_are_there() -> None:
    assert set(PUBLISHED) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_width_is_what_was_published(name: str) -> None:
    expected = PUBLISHED[name]
    cli = build(["-c", name])
    model, data = cli.model, cli.datamodule
    assert isinstance(model, PriorModel)
    assert isinstance(data, ImageData)
    assert model.latent_dim == expected.latent_dim
    latents = torch.empty(2, model.latent_dim, device="meta")
    assert model.likelihood.mean(latents).shape == (2, *expected.image)
    assert model.prior.energy(latents).shape == (2,)
    assert sum(p.numel() for p in model.likelihood.parameters()) == expected.generator
    assert sum(p.numel() for p in model.prior.parameters()) == expected.energy
    samplers = (model.prior_sampler, model.posterior_sampler)
    assert [(sampler.steps, sampler.step_size) for sampler in samplers] == [
        expected.prior,
        expected.posterior,
    ]
    for settings in (
        cli.config.model.init_args.prior_sampler.init_args,
        cli.config.model.init_args.posterior_sampler.init_args,
    ):
        assert settings.noise_scale is settings.temperature is None, (
            "every published chain keeps the noise of its step"
        )
    assert model.likelihood.sigma == expected.sigma
    assert data.batch_size == expected.batch_size
    settings = cli.config.data.init_args
    assert (settings.channels, settings.image_size, settings.image_size) == expected.image
    assert (data.seed, model.seed) == (cli.config.seed_everything,) * 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_seed_and_latent_size_reach_every_part(name: str) -> None:
    cli = build(["-c", name, "--seed_everything", "7", "--latent_dim", "5"])
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)
    assert cli.model.likelihood.latent_dim == cli.model.prior.latent_dim == 5


def small(name: str) -> list[str]:
    """Overrides: published depth, at most 64 channels; a frozen generator stays as its backbone has it."""
    model = CONTENT[name]["model"]["init_args"]
    arguments = model["likelihood"]["init_args"]["generator"]["init_args"]
    active = ".active.init_args" if name.startswith("multistage_nce/") else ""
    words = [f"{ENERGY}{active}.hidden=[16, 16]"]
    if (model.get("inference") or {}).get("class_path") == "Frozen":
        return words
    if "channels" in arguments:
        return [*words, f"{GENERATOR}.channels={[max(4, width // 64) for width in arguments['channels']]}"]
    return [*words, f"{GENERATOR}.hidden={[64 for _ in arguments['hidden']]}"]


def synthetic(name: str, folder: Path) -> list[str]:
    """Random images of the recipe's kind, in its splits, and the overrides that point at them."""
    settings: dict[str, Any] = CONTENT[name]["data"]["init_args"]
    size = (218, 178) if "crop" in settings else (settings["image_size"],) * 2
    random = np.random.default_rng(0)
    for split, n in {"train": 16, settings.get("test_split", "test"): 8}.items():
        shape = (n, *size) if settings["channels"] == 1 else (n, *size, 3)
        images = [png(image) for image in random.integers(0, 256, shape, dtype=np.uint8)]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", images, [row % 6 for row in range(n)])
    changed = {
        "path": folder,
        "config_name": "null",
        "image_column": "image",
        "batch_size": 2,
        "eval_batch_size": 4,
    }
    if settings.get("validation_size"):
        changed["validation_size"] = 4
    return [f"--data.init_args.{key}={value}" for key, value in changed.items()]


def two_steps(
    words: list[str], run_dir: Path, chains: Sequence[str] = ("prior", "posterior")
) -> dict[str, Any]:
    """Train an epoch of two steps, with validation and chains of two steps, and return the summary."""
    limits = [
        "--trainer.max_steps=2",
        "--trainer.limit_train_batches=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    lengths = [f"--model.init_args.{kind}_sampler.init_args.steps=2" for kind in chains]
    lengths.append("--model.init_args.evaluation_steps=2")
    assert run(["fit", *words, *limits, *lengths, "--run_dir", str(run_dir)]) == 0
    with (run_dir / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    return json.loads((run_dir / "summary.json").read_text())


def plain_chains(name: str) -> list[str]:
    """The chains of a recipe whose number of steps is an argument of the sampler itself."""
    arguments = CONTENT[name]["model"]["init_args"]
    samplers = {kind: arguments.get(f"{kind}_sampler") or {} for kind in ("prior", "posterior")}
    return [kind for kind, sampler in samplers.items() if sampler.get("class_path") == "Langevin"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if re.search("celeba|svhn", name) else [])
        for name in EXPERIMENTS
    ],
)
def test_two_steps_of_training(name: str, tmp_path: Path) -> None:
    words = ["-c", name, *small(name), *synthetic(name, tmp_path / "data")]
    summary = two_steps(words, tmp_path / "run", plain_chains(name))
    assert summary["status"] == "finished"
    assert summary["steps"] == 2
    assert list((tmp_path / "run" / "images").rglob("*.png"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("name", LOGGERS)
def test_two_steps_with_a_logger(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [
        "-c",
        "quickstart",
        "-c",
        name,
        *small("quickstart"),
        *synthetic("quickstart", tmp_path / "data"),
    ]
    assert two_steps(words, tmp_path / "run", plain_chains("quickstart"))["steps"] == 2
    written = {
        path.relative_to(tmp_path / "run").parts[0]
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    own = {"loggers/wandb": "wandb", "loggers/tensorboard": "tensorboard", "loggers/csv": "metrics.csv"}
    assert own[name] in written
    assert not (set(own.values()) - {own[name], "metrics.csv"}) & written


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_steps_at_full_width(name: str, tmp_path: Path) -> None:
    words = [
        "-c",
        name,
        *synthetic(name, tmp_path / "data"),
        "--trainer.callbacks=null",
        "--trainer.enable_checkpointing=false",
    ]
    assert two_steps(words, tmp_path / "run", plain_chains(name))["steps"] == 2


@pytest.mark.parametrize("name", ROWS[1:])
def test_vectors_train_and_are_drawn_in_their_own_units(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    mean, spread = np.array([5.0, -40.0]), np.array([0.1, 9.0])
    np.savez(tmp_path / "v.npz", x=mean + spread * noise.normal(size=(600, 2)), y=np.zeros(600, dtype=int))
    words = ["-c", name, "--latent_dim", "2", "--data.init_args.path", str(tmp_path / "v.npz")]
    few = {
        "latent_mle/vectors": ["--trainer.max_steps=20"],
        "multistage_nce/vectors": [
            "--model.init_args.stages.init_args.steps=8",
            "--trainer.max_steps=24",
            "--model.init_args.annealing.init_args.levels=5",
            "--model.init_args.annealing_chains=16",
            "--model.init_args.prior_sampler.init_args.fresh_steps=20",
        ],
    }
    folder = tmp_path / "run"
    assert run(["fit", *words, *few[name], "--run_dir", str(folder)]) == 0
    drawn = lebm.load(folder).sample(2000, generator=torch.Generator().manual_seed(0)).numpy()
    assert np.abs((drawn.mean(axis=0) - mean) / spread).max() < 0.25
    assert np.abs(drawn.std(axis=0) / spread - 1).max() < 0.25


@pytest.mark.slow
def test_the_plane_is_learned_in_stages(tmp_path: Path) -> None:
    """Of full length but for its stages: each of the four becomes a panel, and the prior comes nearer to the
    data.
    """
    words = [
        "-c",
        "multistage_nce/toy2d",
        "--model.init_args.stages.init_args.steps=30",
        "--trainer.max_epochs=6",
    ]
    quick = [
        "--trainer.check_val_every_n_epoch=6",
        "--trainer.enable_progress_bar=false",
        "--model.init_args.annealing.init_args.levels=5",
    ]
    assert run(["fit", *words, *quick, "--run_dir", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 120
    assert [record["stage"] for record in summary["chains"]["stages"]] == [1, 2, 3, 4]
    assert [constant["stage"] for constant in summary["chains"]["log_z"]] == [1, 2, 3, 4]
    assert summary["metrics"]["val/prior_mmd"] < summary["metrics"]["val/prior_mmd_start"]
    assert (tmp_path / "run" / "images" / "stages" / "latest.png").exists()
