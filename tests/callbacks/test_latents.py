"""Pictures of latents: prior and posterior, traversals and long chains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import LatentPicture, LatentTraversal, LongChain
from lebm.plots import latent_picture
from lebm.plots.latents import projection
from lebm.samplers import Noise
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
    start = model.chain_start(3, noise)
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
