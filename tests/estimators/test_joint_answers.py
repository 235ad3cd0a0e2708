"""What JointHierarchicalPrior answers, and the settings that it refuses."""

from __future__ import annotations

import pytest
import torch

from lebm.estimators import AdamGroups, JointHierarchicalPrior
from lebm.inference import ShortRun, Variational
from lebm.models import GaussianChain, GaussianLikelihood, MLPGenerator, StandardNormal
from lebm.samplers import Langevin
from tests.estimators.hierarchical_models import (
    DIMS,
    RATES,
    batch_of,
    chain_prior,
    concatenated,
    conditional,
    ladder,
    rates,
    variational,
)

SIZE = sum(DIMS)


@pytest.mark.parametrize("name", ["ladder", "noise", "latent"])
def test_the_likelihood_ratio_without_replaced_layers_is_zero(name: str) -> None:
    model = variational() if name == "ladder" else conditional("variational", space=name)
    x = batch_of()["x"]
    z = model.encode(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.redraw(z, []), z)
    above = model.redraw(z, [0, 1], generator=torch.Generator().manual_seed(0))
    assert (model.log_joint(x, z) - model.log_joint(x, above)).abs().min() > 1e-3


def test_answers_have_the_shapes_of_the_contract() -> None:
    for model in (
        variational(),
        conditional("mcmc"),
        conditional("variational", space="noise"),
        variational(StandardNormal(SIZE)),
    ):
        x = batch_of(3)["x"]
        with torch.inference_mode():
            assert model.sample(4, steps=2, generator=torch.Generator().manual_seed(0)).shape == (4, 1, 4, 4)
            z = model.encode(x, steps=2, generator=model.sample_noise("encode", torch.arange(3)))
            assert z.shape == (3, SIZE)
            assert model.anomaly_score(x, steps=2).shape == (3,)
            assert model.redraw(z, [0, 1], steps=2).shape == z.shape
        kind = type(model.inference).__name__
        assert model.chain_settings["inference"]["class_path"] == f"lebm.inference.{kind}"


def test_a_score_does_not_depend_on_the_batch() -> None:
    for model in (variational(), conditional("mcmc")):
        x, index = batch_of(4)["x"], torch.arange(4)
        together = model.anomaly_score(x, generator=model.sample_noise("encode", index))
        alone = model.anomaly_score(x[2:3], generator=model.sample_noise("encode", index[2:3]))
        torch.testing.assert_close(together[2:3], alone)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(
        ValueError, match="inference ShortRun runs posterior chains: give a posterior_sampler"
    ):
        JointHierarchicalPrior(
            GaussianLikelihood(ladder()),
            concatenated(),
            Langevin(1, 0.1),
            rates("generator", "energy"),
            ShortRun(),
        )
    with pytest.raises(ValueError, match="disagree on the layers"):
        JointHierarchicalPrior(
            GaussianLikelihood(MLPGenerator(SIZE, [4])),
            chain_prior(),
            Langevin(1, 0.1),
            AdamGroups(RATES),
            Variational(encoder_of([1, 1, 3])),
        )
    for kwargs, message in (
        ({"kl": "exact"}, "kl must be one of"),
        ({"warm_up": -1.0}, "warm_up must not be negative"),
        ({"prior_pull": 0.0}, "prior_pull must be above 0 and at most 1"),
        ({"space": "noise"}, "space 'noise' needs a HierarchicalPrior"),
        ({"noise_target": "released"}, "requires space 'noise'"),
    ):
        with pytest.raises(ValueError, match=message):
            variational(**kwargs)
    with pytest.raises(ValueError, match="trains an energy"):
        conditional("two_stage", GaussianChain(DIMS))


def encoder_of(sizes: list[int]):
    from lebm.models import LadderEncoder

    return LadderEncoder(sizes, [4], [["linear 4"]] * 3)
