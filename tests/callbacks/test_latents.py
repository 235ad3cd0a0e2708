"""Pictures of latents: prior and posterior, traversals, long chains and stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import LatentPicture, LatentTraversal, LongChain, StagePicture
from lebm.errors import UserError
from lebm.estimators import AdamGroups, FixedStages, MultiStageNCE
from lebm.models import (
    GaussianLikelihood,
    IdentityGenerator,
    MLPEnergy,
    MLPGenerator,
    RatioPrior,
    RatioProduct,
)
from lebm.plots import latent_picture, stage_picture
from lebm.plots.latents import projection
from lebm.samplers import Langevin, Noise
from tests.callbacks.tiny import EchoModel, TinyData, latent_mle, trainer
from tests.estimators.hierarchical_models import variational


def test_axes_are_the_principal_components_of_the_posterior() -> None:
    source = torch.Generator().manual_seed(0)
    posterior = (
        torch.randn(500, 5, generator=source, dtype=torch.float64)
        * torch.tensor([0.1, 3, 0.1, 1, 0.1]).double()
        + 2
    )
    prior = torch.randn(100, 5, generator=source, dtype=torch.float64)
    on_posterior, on_prior = projection(posterior, posterior, prior)
    values = torch.linalg.eigvalsh(torch.cov(posterior.T)).flip(0)
    torch.testing.assert_close(on_posterior.var(dim=0), values[:2])
    torch.testing.assert_close(on_posterior.mean(dim=0), torch.zeros(2, dtype=torch.float64))
    assert float(torch.corrcoef(torch.stack([on_prior[:, 0], prior[:, 1]]))[0, 1]) > 0.99  # the sign too
    again = projection(-posterior, -posterior)[0]
    assert abs(float(torch.corrcoef(torch.stack([again[:, 0], on_posterior[:, 0]]))[0, 1])) == pytest.approx(
        1
    )


@pytest.mark.parametrize("d", [1, 2, 7])
def test_any_latent_size_and_broken_rows(d: int) -> None:
    posterior, prior = torch.randn(30, d), torch.randn(20, d)
    prior[3] = float("nan")
    picture = latent_picture(prior, posterior)
    assert picture.shape == (500, 1000, 3)
    assert picture.dtype == np.uint8
    colours = picture.astype(int) @ [1, 256, 65536]
    assert len(np.unique(colours)) > 20  # something was drawn


def test_everything_broken_is_still_a_picture() -> None:
    assert latent_picture(torch.full((5, 3), float("nan")), torch.full((5, 3), float("inf"))).shape == (
        500,
        1000,
        3,
    )


def test_file_in_the_run_folder_and_no_global_state(tmp_path: Path) -> None:
    callback = LatentPicture(n=10)
    trainer(tmp_path, [callback]).test(EchoModel(), datamodule=TinyData(), verbose=False)
    file = tmp_path / "images" / "latents" / "test.png"
    assert Image.open(file).size == (1000, 500)
    assert callback._prior is None


def test_a_longer_chain_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    """The columns of the picture are one chain: that of twenty steps begins with that of ten."""
    model = variational()
    ten, twenty = (
        model.sample_latent(3, steps=steps, generator=Noise.shards(0, "long chain")) for steps in (10, 20)
    )
    noise = Noise.shards(0, "long chain")
    start = model.space.reference(3, noise)
    ten_again = model.prior_sampler(model.prior.target(), start, noise, steps=10)
    torch.testing.assert_close(ten, ten_again)
    torch.testing.assert_close(twenty, model.prior_sampler(model.prior.target(), ten_again, noise, steps=10))


def test_any_method_has_long_chains_and_traversals(tmp_path: Path) -> None:
    trainer(tmp_path, [LongChain(lengths=(0, 10), n=2), LatentTraversal(columns=3)]).test(
        latent_mle(), datamodule=TinyData(), verbose=False
    )
    rows, columns = 2, 3
    picture = Image.open(tmp_path / "images" / "traversal" / "test.png")
    assert picture.size == (2 + 6 * columns, 2 + 6 * rows)
    assert np.asarray(Image.open(tmp_path / "images" / "long_chain" / "test.png")).any()


def staged(stages: int, trained: bool) -> MultiStageNCE:
    torch.manual_seed(0)
    model = MultiStageNCE(
        GaussianLikelihood(MLPGenerator(2, (1, 4, 4), hidden=[8]), sigma=0.5),
        RatioPrior(RatioProduct(MLPEnergy(2, [], output_bias=True), 3)),
        Langevin(30, 0.4),
        Langevin(3, 0.1),
        AdamGroups({"generator": 1e-3, "energy": 1e-3}),
        FixedStages(10),
    )
    product = model.prior.tilt
    for stage in range(stages + trained):
        with torch.no_grad():
            product.active.net[0].weight.copy_(torch.tensor([[-2.0, 0.0]]))  # each moves the prior by two
        if stage < stages:
            product.switch()
    return model.double()


@pytest.mark.parametrize(("stages", "trained", "panels"), [(0, False, 2), (2, False, 4), (1, True, 4)])
def test_one_panel_a_stage(tmp_path: Path, stages: int, trained: bool, panels: int) -> None:
    callback = StagePicture(n=20)
    trainer(tmp_path, [callback]).test(staged(stages, trained), datamodule=TinyData(), verbose=False)
    columns = min(4, panels)
    assert Image.open(tmp_path / "images" / "stages" / "test.png").size == (
        320 * columns,
        350 * -(-panels // columns),
    )
    far, start = callback.figures["test/prior_mmd"], callback.figures["test/prior_mmd_start"]
    assert (far == start) == (panels == 2)
    if panels > 2:  # the posterior of a fresh generator is near N(0, I), the shifted prior is not
        assert far > start + 0.1
    assert callback._priors == {}


def test_clouds_are_those_of_the_stages(tmp_path: Path) -> None:
    model, callback = staged(2, False), StagePicture(n=4000, steps=60)
    callback.begin(trainer(tmp_path, []), model, "test", {})
    means = [cloud.mean(dim=0) for cloud in callback._priors.values()]
    for mean, expected in zip(means, (0.0, 2.0, 4.0), strict=True):
        torch.testing.assert_close(
            mean, torch.tensor([expected, 0.0], dtype=mean.dtype), rtol=0, atol=4 * 1.03 / 4000**0.5
        )


@pytest.mark.parametrize("d", [2, 5])
def test_picture_in_any_dimension(d: int) -> None:
    densities = [lambda z: -0.5 * z.square().sum(dim=1)] * 5 if d == 2 else None
    picture = stage_picture(
        torch.randn(50, d), {f"stage {k}": torch.randn(50, d) for k in range(5)}, densities
    )
    assert picture.shape == (700, 1280, 3)
    assert picture.dtype == np.uint8


def test_a_model_without_stages_is_named(tmp_path: Path) -> None:
    for model in (EchoModel(), latent_mle()):
        with pytest.raises(UserError, match="RatioPrior, which (EchoModel|LatentMLE) does not have"):
            trainer(tmp_path, [StagePicture()]).test(model, datamodule=TinyData(), verbose=False)
    with pytest.raises(ValueError, match="n must be at least 2"):
        StagePicture(n=1)


def test_identity_generator() -> None:
    z = torch.randn(3, 2)
    assert IdentityGenerator(2)(z) is z
