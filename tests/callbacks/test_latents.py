"""The picture of the latent space."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import LatentPicture
from lebm.plots import latent_picture
from lebm.plots.latents import projection
from tests.callbacks.tiny import EchoModel, TinyData, trainer


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
