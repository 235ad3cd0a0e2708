"""The picture of the stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import StagePicture
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
from lebm.plots import stage_picture
from lebm.samplers import Langevin
from tests.callbacks.tiny import EchoModel, TinyData, latent_mle, trainer


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
    with pytest.raises(ValueError, match="latent_dim must be at least 1"):
        IdentityGenerator(0)
