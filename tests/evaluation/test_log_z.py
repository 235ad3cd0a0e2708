"""The estimate of log Z that an evaluation reports: annealing, or draws of the base where they say more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lebm.data.rows import ImageRows
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import RunImages
from lebm.evaluation.marginal_likelihood import likelihood_suite, model_log_z
from lebm.models import GaussianMixture
from lebm.samplers import Noise
from tests.density_ratio.test_log_z import quadrature
from tests.estimators.test_prior_chains import Waves, model_of
from tests.models.test_priors import Slope


def noise(purpose: str) -> Noise:
    return Noise([(0, purpose)])


def test_draws_of_a_near_base_are_narrower_than_annealing() -> None:
    model = model_of(Waves())
    below, above = model_log_z(model, levels=5, chains=200, noise=noise)
    assert below is above
    assert float(below.low) < quadrature(model.prior) < float(below.high)
    assert float(below.high - below.low) < 0.1


def test_draws_of_a_far_base_do_not_count() -> None:
    """The tilt moves the only component by 4 standard deviations, so log Z is 8 and few draws have weight."""
    model = model_of(Slope(torch.tensor([-4.0, 0.0])))
    model.prior.base.load_state_dict(GaussianMixture(2, 3).state_dict())
    below, above = model_log_z(model, levels=40, chains=100, noise=noise)
    assert below is not above
    assert float(below.estimate) == pytest.approx(8, abs=0.5)
    assert float(above.estimate) == pytest.approx(8, abs=1.0)


def test_a_prior_that_waits_for_its_base_is_normalised() -> None:
    from lebm.estimators import FitBase

    model = model_of(Waves(), fit_base=FitBase(1))
    below, above = model_log_z(model, levels=5, chains=20, noise=noise)
    assert float(below.estimate) == float(above.estimate) == 0


@pytest.mark.parametrize(
    ("name", "method", "n"),
    [
        ("waiting", "known, because the prior is normalised", 512),
        ("near", "normal, over samples of the base", 40 * 512),
    ],
)
def test_the_record_says_how_log_z_is_known(name: str, method: str, n: int) -> None:
    from lebm.estimators import FitBase

    model = model_of(Waves(), **({"fit_base": FitBase(1)} if name == "waiting" else {}))
    x = model.sample(4)
    images = ImageRows([x.numpy()], np.zeros(4, dtype=np.int64), np.arange(4))
    subject = Subject(model.eval(), RunImages(None, images, {}, {}, None))
    settings = Settings(likelihood_images=4, levels=2, chains=2)
    below, above = likelihood_suite(subject, settings).figures[:2]
    assert (below.name, above.name) == ("log_z/below", "log_z/above")
    assert below.interval == above.interval == method
    assert below.n == above.n == n
