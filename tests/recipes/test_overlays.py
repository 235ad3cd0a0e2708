"""Overlays that change the inference and the prior's chain: with every method, on images and on sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from lebm.estimators import PriorModel
from lebm.models import ConvEncoder, MLPEncoder, SentenceEncoder
from lebm.samplers import PersistentChains
from tests.recipes.test_recipes import ALL, PARTS, build, small, synthetic, two_steps

KINDS = {name.split("/")[1]: name for name in PARTS if name.startswith("inference/")}
RECIPES = (
    "latent_mle/mnist_published",
    "multistage_nce/mnist_published",
    "latent_mle/svhn",
    "latent_mle/text_small",
)
ENCODERS = {
    "latent_mle/mnist_published": MLPEncoder,
    "multistage_nce/mnist_published": MLPEncoder,
    "latent_mle/svhn": ConvEncoder,
    "latent_mle/text_small": SentenceEncoder,
}


def test_there_is_an_overlay_for_each_kind_that_needs_no_other_run() -> None:
    assert set(KINDS) == {"short_run", "remembered", "taught", "variational"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if name == RECIPES[0] or kind == "taught" else pytest.mark.slow)
        for name in RECIPES
        for kind in KINDS
    ],
)
def test_an_overlay_changes_the_inference_and_nothing_else(name: str, kind: str) -> None:
    plain, changed = build(["-c", name]).model, build(["-c", name, "-c", KINDS[kind]]).model
    assert isinstance(plain, PriorModel)
    assert isinstance(changed, PriorModel)
    assert type(changed.inference).__name__.lower() == kind.replace("_", "")
    assert type(changed.encoder) is (ENCODERS[name] if kind in ("taught", "variational") else type(None))
    rates = {key: rate for key, rate in changed.optimizer_settings.lr.items() if key != "encoder"}
    assert rates == plain.optimizer_settings.lr
    assert ("encoder" in changed.networks()) == (changed.encoder is not None)
    assert (changed.posterior_sampler is None) == (kind == "variational")
    for part in ("likelihood", "prior", "prior_sampler"):
        assert repr(getattr(plain, part)) == repr(getattr(changed, part))


def test_a_variational_encoder_weighs_its_kl_against_the_whole_likelihood() -> None:
    model = build(["-c", "latent_mle/svhn", "-c", KINDS["variational"]]).model
    assert isinstance(model, PriorModel)
    assert model.scale_likelihood  # the recipe alone leaves 1 / (2 sigma^2) out


def test_a_pool_takes_the_place_of_fresh_chains() -> None:
    model = build(["-c", "latent_mle/mnist_published", "-c", "prior/persistent"]).model
    assert isinstance(model, PriorModel)
    assert isinstance(model.prior_sampler, PersistentChains)
    assert model.prior_sampler.steps == 10
    assert model.eval().chain_steps("prior") == 300
    assert model.optimizer_settings.lr == {"generator": 1e-3, "energy": 3e-4}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("latent_mle/mnist_published", kind) for kind in KINDS if kind != "short_run"]
    + [("multistage_nce/mnist_published", "taught")],
)
def test_two_steps_of_training(name: str, kind: str, tmp_path: Path) -> None:
    words = ["-c", name, "-c", KINDS[kind], "-c", "prior/persistent", *small(name)]
    chains = () if kind == "variational" else ("posterior",)
    summary = two_steps([*words, *synthetic(name, tmp_path / "data")], tmp_path / "run", chains)
    assert summary["steps"] == 2


def test_an_overlay_that_needs_an_encoder_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from lebm.cli.dispatch import run

    name = "joint_hierarchical/celeba64_conditional"
    assert name in ALL
    assert run(["validate-recipe", "-c", name, "-c", KINDS["taught"]]) == 2
    error = capsys.readouterr().err
    assert "no encoder can be made from BottomLayer: give the inference an encoder" in error
    assert error.count("\n") == 1
