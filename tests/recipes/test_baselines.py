"""The baselines: the generator of latent_mle/mnist_published, an unlearned prior, and two training steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lebm.models import StandardNormal
from tests.recipes.published import MNIST, linear
from tests.recipes.test_recipes import BASELINES, build, synthetic, two_steps

NETWORKS = {
    "baselines/mnist_gaussian": {"generator": MNIST.generator},
    "baselines/mnist_vae": {
        "generator": MNIST.generator,
        "encoder": linear(784, 400, 400, 2 * MNIST.latent_dim),
    },
}


def test_every_baseline_is_here() -> None:
    assert set(NETWORKS) == set(BASELINES)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_generator_is_that_of_the_method_and_the_prior_has_nothing_to_learn(name: str) -> None:
    cli = build(["-c", name])
    sizes = {
        key: sum(p.numel() for p in network.parameters()) for key, network in cli.model.networks().items()
    }
    assert sizes == NETWORKS[name]
    assert isinstance(cli.model.prior, StandardNormal)
    assert (cli.model.latent_dim, cli.model.likelihood.sigma) == (MNIST.latent_dim, MNIST.sigma)
    assert cli.datamodule.batch_size == MNIST.batch_size


@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_of_training(name: str, tmp_path: Path) -> None:
    chains = ["posterior"] if name == "baselines/mnist_gaussian" else []
    summary = two_steps(["-c", name, *synthetic(name, tmp_path / "data")], tmp_path / "run", chains)
    assert (summary["status"], summary["steps"]) == ("finished", 2)
    assert list((tmp_path / "run" / "images").rglob("*.png"))
