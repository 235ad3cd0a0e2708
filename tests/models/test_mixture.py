"""GaussianMixture against ``torch.distributions``, quadrature, scipy and the fit of scikit-learn."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lebm.component import describe
from lebm.models import GaussianMixture, StandardNormal
from lebm.models import mixture as module
from lebm.samplers import Noise
from tests.ground_truth.monte_carlo import second_moments, z_scores

KINDS = ["full", "tied", "diagonal"]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int, dim: int, n: int, spread: float = 3.0, seed: int = 0) -> Tensor:
    """``n`` latents in each of several clusters with thin, tilted shapes, ``(count * n, dim)`` of float64."""
    generator = source(seed)
    parts = []
    for _ in range(count):
        shape = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
        noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        centre = spread * torch.randn(dim, generator=generator, dtype=torch.float64)
        parts.append(centre + noise @ (shape + 0.1 * torch.eye(dim, dtype=torch.float64)))
    return torch.cat(parts)


def fitted(z: Tensor, components: int = 3, seed: int = 0, **settings: object) -> GaussianMixture:
    made = GaussianMixture(z.shape[1], components, **settings).to(z.dtype)  # type: ignore[arg-type]
    made.fit(z, source(seed))
    return made


def in_torch(made: GaussianMixture) -> MixtureSameFamily:
    weights = Categorical(logits=made.log_weight)
    return MixtureSameFamily(weights, MultivariateNormal(made.mean, scale_tril=made.factor))


@pytest.mark.parametrize("kind", KINDS)
def test_density_and_gradient_are_those_of_torch(kind: str) -> None:
    z = blobs(3, 4, 50)
    made = fitted(z, covariance=kind)
    points = (z[::5] + torch.randn(30, 4, generator=source(), dtype=torch.float64)).requires_grad_()
    value = in_torch(made).log_prob(points)
    torch.testing.assert_close(made.log_density(points), value, rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(value.sum(), points)
    own = made.state_gradient(points)
    torch.testing.assert_close(own, slope, rtol=1e-9, atol=1e-9)
    assert not own.requires_grad
    (by_autograd,) = torch.autograd.grad(made.log_density(points).sum(), points)
    torch.testing.assert_close(by_autograd, slope, rtol=1e-9, atol=1e-9)


def test_passes_over_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    z = blobs(3, 4, 50)
    whole = fitted(z)
    value, slope, drawn = whole.log_density(z), whole.state_gradient(z), whole.reference(20, source(1))
    monkeypatch.setattr(module, "CHUNK", 90)  # 7 rows or 5
    parts = fitted(z)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.factor, whole.factor)
    torch.testing.assert_close(whole.log_density(z), value)
    torch.testing.assert_close(whole.state_gradient(z), slope)
    torch.testing.assert_close(whole.reference(20, source(1)), drawn)


def test_the_density_integrates_to_one() -> None:
    made = fitted(blobs(3, 2, 100, spread=1.5))
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    cell = float(axis[1] - axis[0]) ** 2
    total = made.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * cell
    assert float(total) == pytest.approx(1, abs=1e-6)


def test_draws_follow_the_density() -> None:
    """Moments of the whole and of each component within four standard errors, shares and a projection by
    tests at one per mille.
    """
    apart = 20 * torch.arange(3).repeat_interleave(200).unsqueeze(1)
    z = (blobs(3, 3, 200, spread=0.0) + apart)[: 2 * 200 + 60]  # shares of 200, 200 and 60
    made, n = fitted(z), 40_000
    drawn = made.reference(n, source(1))
    weight = made.log_weight.exp()
    mean = weight @ made.mean
    assert z_scores(drawn, mean) < 4
    within = made.factor @ made.factor.transpose(1, 2)
    apart = made.mean - mean
    covariance = (weight[:, None, None] * (within + apart.unsqueeze(2) * apart.unsqueeze(1))).sum(dim=0)
    assert z_scores(second_moments(drawn, mean), covariance) < 4
    label = made.joint(drawn).argmax(dim=1)
    assert chisquare(label.bincount(minlength=3), weight * n).pvalue > 1e-3
    for number in range(3):
        own = drawn[label == number]
        assert z_scores(own, made.mean[number]) < 4
        assert z_scores(second_moments(own, made.mean[number]), within[number]) < 4
    axis = torch.tensor([0.6, -0.3, 0.74], dtype=torch.float64)
    width = torch.einsum("i,kij,j->k", axis, within, axis).sqrt()
    parameters = [part.tolist() for part in (weight, made.mean @ axis, width)]

    def distribution(value: np.ndarray) -> np.ndarray:
        return sum(w * norm.cdf(value, m, s) for w, m, s in zip(*parameters, strict=True))

    assert kstest((drawn[:5000] @ axis).numpy(), distribution).pvalue > 1e-3


def test_before_the_fit_it_is_a_standard_normal() -> None:
    made = GaussianMixture(4, 50)
    z = 2 * torch.randn(100, 4, generator=source())
    torch.testing.assert_close(made.log_density(z), StandardNormal(4).log_density(z), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(made.state_gradient(z), -z)
    drawn = made.reference(20_000, source())
    assert z_scores(drawn, 0.0) < 4
    assert z_scores(second_moments(drawn), torch.eye(4)) < 4
    assert kstest(drawn[:5000, 0].numpy(), norm.cdf).pvalue > 1e-3
    given = made.conditionals(z)
    assert given is not None
    assert not given.mean.any()
    assert not given.log_scale.any()
    assert made.fitted == 0
    assert made.is_exact
    made.fit(z, source())
    assert made.conditionals(z) is None


def test_draws_do_not_depend_on_the_number_of_processes() -> None:
    made = fitted(blobs(3, 3, 50).float())
    whole = made.reference(8, Noise.shards(0, "base", shards=4))
    halves = [made.reference(4, Noise.shards(0, "base", shards=4, rank=r, world_size=2)) for r in range(2)]
    assert torch.equal(whole, torch.cat(halves))


def test_weights_that_keep_the_shares_equal_their_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a linear log-factor ``a z``, ``E_k[exp(a z)]`` is ``exp(a mu_k + a Sigma_k a / 2)``."""
    made, n = fitted(blobs(3, 4, 100, spread=0.3)), 50_000
    before, after = (0.2 * torch.randn(4, generator=source(seed), dtype=torch.float64) for seed in (1, 2))
    changed = copy.deepcopy(made)
    monkeypatch.setattr("lebm.models.mixture.SHARE_DRAWS", n)
    changed.keep_shares(lambda z: z @ before, lambda z: z @ after, source())
    spread = made.factor @ made.factor.transpose(1, 2)

    def logs(slope: Tensor) -> tuple[Tensor, Tensor]:
        variance = torch.einsum("i,kij,j->k", slope, spread, slope)
        return made.mean @ slope + variance / 2, (variance.exp() - 1) / n

    (first, one), (second, two) = logs(before), logs(after)
    change = first - second
    expected = torch.log_softmax(made.log_weight + change, dim=0)
    error = (one + two).sqrt().max()  # an upper bound: both use the same samples
    assert change.abs().max() < 1, "no change is limited"
    assert change.std() > 20 * error
    assert float((changed.log_weight - expected).abs().max()) < 2 * 4 * float(error)
    assert float(changed.log_weight.exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_weight_changes_by_a_factor_of_at_most_e() -> None:
    """A ratio that removes a component must not leave a mixture of this component alone."""
    made = fitted(20 * torch.arange(2.0).repeat_interleave(100).unsqueeze(1) + torch.randn(200, 1), 2)
    before = made.log_weight.clone()
    made.keep_shares(lambda z: torch.zeros(len(z)), lambda z: -50 * (z[:, 0] > 10).float(), source())
    # One weight is divided by e instead of e^50, and the other is doubled.
    assert float((made.log_weight - before).diff().abs()) == pytest.approx(1 + math.log(2), abs=1e-4)
    unchanged = made.log_weight.clone()
    for common in (2.0, -3.0):  # has no effect on the shares, however large
        made.keep_shares(
            lambda z: torch.zeros(len(z)), lambda z, c=common: torch.full_like(z[:, 0], c), source()
        )
        assert torch.allclose(made.log_weight, unchanged, atol=1e-6)


# The fit


def scikit(made: GaussianMixture, z: Tensor, **settings: object) -> Reference:
    kind = {"diagonal": "diag"}.get(made.covariance, made.covariance)
    floor = made.floor * float(z.var(dim=0, unbiased=False).mean())
    other = Reference(made.fitted, covariance_type=kind, reg_covar=floor, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return other.fit(z.numpy())


def after_iterations(
    monkeypatch: pytest.MonkeyPatch, z: Tensor, count: int, components: int, **settings: object
) -> GaussianMixture:
    monkeypatch.setattr(module, "MAX_ITERATIONS", count)
    monkeypatch.setattr(module, "TOLERANCE", 0.0)
    return fitted(z, components, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_an_iteration_is_that_of_scikit_learn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z = blobs(4, 3, 100, spread=1.0)
    before, after = (after_iterations(monkeypatch, z, count, 4, covariance=kind) for count in (3, 4))
    precision = before.whitener.transpose(1, 2) @ before.whitener
    shapes = {"full": precision, "tied": precision[0], "diagonal": precision.diagonal(dim1=1, dim2=2)}
    start = {
        "weights_init": before.log_weight.exp().numpy(),
        "means_init": before.mean.numpy(),
        "precisions_init": shapes[kind].numpy(),
    }
    other = scikit(before, z, max_iter=1, init_params="random", random_state=0, **start)
    torch.testing.assert_close(after.log_weight.exp(), torch.from_numpy(other.weights_), rtol=0, atol=1e-9)
    torch.testing.assert_close(after.mean, torch.from_numpy(other.means_), rtol=0, atol=1e-9)
    covariance = after.factor @ after.factor.transpose(1, 2)
    own = {"full": covariance, "tied": covariance[0], "diagonal": covariance.diagonal(dim1=1, dim2=2)}
    torch.testing.assert_close(own[kind], torch.from_numpy(other.covariances_), rtol=0, atol=1e-9)
    assert not torch.allclose(after.mean, before.mean, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_as_likely_as_those_of_scikit_learn(kind: str) -> None:
    """The mean over seeds is within the range of scikit-learn's own restarts, which is not a point."""
    z = blobs(12, 4, 60, spread=1.5)
    own = [float(fitted(z, 12, seed, covariance=kind).log_density(z).mean()) for seed in range(8)]
    made = fitted(z, 12, covariance=kind)
    other = [scikit(made, z, random_state=seed).score(z.numpy()) for seed in range(8)]
    assert max(other) - min(other) > 0.01
    assert min(other) < sum(own) / len(own) < max(other)


def test_the_likelihood_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    z = blobs(5, 3, 80, spread=1.0)
    values = [
        float(after_iterations(monkeypatch, z, count, 5, floor=1e-9).log_density(z).mean())
        for count in range(1, 25)
    ]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] > values[0] + 0.01


def test_the_tolerance_ends_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[None] = []
    inner = GaussianMixture._expect
    monkeypatch.setattr(GaussianMixture, "_expect", lambda *given: passes.append(None) or inner(*given))
    monkeypatch.setattr(module, "TOLERANCE", 0.5)
    fitted(blobs(3, 3, 50))
    coarse = len(passes)
    monkeypatch.setattr(module, "TOLERANCE", 1e-4)
    fitted(blobs(3, 3, 50))
    assert coarse < len(passes) - coarse < 100


def test_the_seed_decides_the_fit_and_nothing_else_changes() -> None:
    z = blobs(12, 4, 60, spread=1.5).float()
    before = torch.random.get_rng_state()
    first, again, other = fitted(z, 12), fitted(z, 12), fitted(z, 12, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in first.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.mean, other.mean)


def test_a_later_fit_goes_on_from_the_one_before() -> None:
    z = blobs(12, 4, 60, spread=1.5).float()
    mixture = fitted(z, 12)
    before = mixture.log_density(z).mean()
    for _ in range(3):
        mixture.fit(z, source())
    after = mixture.log_density(z).mean()
    assert before <= after <= before + 4 * module.MAX_ITERATIONS * module.TOLERANCE
    moved = z + 0.3
    mixture.fit(moved, source())
    assert mixture.log_density(moved).mean() > before - 0.1


def test_held_out_latents_choose_the_number_of_components() -> None:
    z = blobs(16, 3, 100, spread=4.0).float()
    made = fitted(z, [1, 4, 16, 100])  # type: ignore[arg-type]
    assert made.fitted == 16
    assert made.joint(z).shape == (1600, 16)
    alone = fitted(z, 16)
    assert abs(float((made.log_density(z) - alone.log_density(z)).mean())) < 0.2
    assert fitted(torch.randn(1000, 3, generator=source()), [1, 20]).fitted == 1  # type: ignore[arg-type]


def test_components_without_weight_change_nothing() -> None:
    """Neither those that the choice left out, nor those of latents that repeat, nor under an average of
    weights (EMA).
    """
    z = torch.randn(1000, 3, generator=source())
    made = fitted(z, [1, 20])  # type: ignore[arg-type]
    expected = fitted(z, 1)
    torch.testing.assert_close(made.log_density(z), expected.log_density(z))
    torch.testing.assert_close(made.reference(50, source()), expected.reference(50, source()))
    pairs = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).repeat(20, 1)
    doubled = fitted(pairs, 4)
    assert torch.isfinite(doubled.log_density(pairs)).all()
    assert torch.isfinite(doubled.state_gradient(pairs)).all()
    assert (doubled.reference(100, source()).abs()[:, 0] - 1).abs().max() < 0.2
    for each in (made, doubled):
        average = AveragedModel(each, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        for _ in range(3):
            average.update_parameters(each)
        z = each.reference(50, source())
        torch.testing.assert_close(average.module.log_density(z), each.log_density(z))


def test_the_floor_bounds_every_variance() -> None:
    line = torch.randn(500, 1, generator=source(), dtype=torch.float64) * torch.tensor([3.0, 4.0, 0.0])
    made = fitted(line, 2, floor=0.01)
    floor = 0.01 * float(line.var(dim=0, unbiased=False).mean())
    smallest = torch.linalg.eigvalsh(made.factor @ made.factor.transpose(1, 2)).amin(dim=1)
    torch.testing.assert_close(smallest, torch.full_like(smallest, floor), rtol=1e-6, atol=0)


def test_single_precision_and_an_origin_far_away_cost_little() -> None:
    z = blobs(5, 4, 100)
    exact = fitted(z, 5)
    coarse = fitted((z + 100).float(), 5)
    torch.testing.assert_close(coarse.mean.double() - 100, exact.mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(
        coarse.log_density((z + 100).float()).double(), exact.log_density(z), rtol=0, atol=0.02
    )


def test_mixed_precision_changes_nothing() -> None:
    z = blobs(3, 4, 50, spread=10.0).float()
    made = fitted(z)
    value, slope, drawn = made.log_density(z), made.state_gradient(z), made.reference(20, source())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.log_density(z), value)
        assert torch.equal(made.state_gradient(z), slope)
        assert torch.equal(made.reference(20, source()), drawn)
        torch.testing.assert_close(fitted(z).mean, made.mean)
    half = z.bfloat16()
    assert made.log_density(half).dtype == torch.float32
    assert made.state_gradient(half).dtype == torch.bfloat16


def test_it_is_built_without_memory_and_filled_later() -> None:
    made = fitted(blobs(3, 4, 50).float(), [2, 3])  # type: ignore[arg-type]
    with torch.device("meta"):
        empty = GaussianMixture(4, [2, 3])
    assert empty.mean.is_meta
    empty.load_state_dict(made.state_dict(), assign=True)
    z = torch.randn(5, 4)
    assert empty.fitted == made.fitted
    assert torch.equal(empty.log_density(z), made.log_density(z))
    description = describe(made)
    assert isinstance(description, dict)
    assert description["init_args"]["components"] == [2, 3]


def refusals() -> Iterator[tuple[dict[str, object], str]]:
    yield {"latent_dim": 0}, "latent_dim and components of at least 1, not 0, 50"
    yield {"components": 0}, "latent_dim and components of at least 1, not 2, 0"
    yield {"components": []}, "latent_dim and components of at least 1"
    yield {"covariance": "spherical"}, "covariance must be one of full, tied, diagonal, not 'spherical'"
    yield {"floor": 0.0}, "floor must be positive, not 0"
    yield {"floor": math.nan}, "floor must be positive, not nan"


@pytest.mark.parametrize(("settings", "message"), list(refusals()))
def test_arguments_out_of_range_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{"latent_dim": 2, **settings})  # type: ignore[arg-type]


def test_few_latents_have_few_components() -> None:
    """The components of a recipe, 50, fitted to the encodings of 35 images."""
    made = GaussianMixture(2, 50)
    z = torch.randn(35, 2, generator=torch.Generator().manual_seed(0))
    made.fit(z, torch.Generator().manual_seed(1))
    assert made.fitted == 3
    three = GaussianMixture(2, 3)
    three.fit(z, torch.Generator().manual_seed(1))
    assert torch.equal(made.log_density(z), three.log_density(z))


def test_latents_that_cannot_be_fitted_are_refused() -> None:
    made = GaussianMixture(2, [3, 5])
    for z, message in (
        (torch.zeros(10, 3), r"finite latents \(N, 2\), not \(10, 3\)"),
        (torch.zeros(10), r"finite latents \(N, 2\)"),
        (torch.full((10, 2), torch.nan), "finite latents"),
        (torch.zeros(1, 2), "1 latents are too few for a fit"),
    ):
        with pytest.raises(ValueError, match=message):
            made.fit(z)
    with pytest.raises(ValueError, match="use precision bf16-mixed"):
        made.bfloat16().fit(torch.randn(100, 2))  # as a user of --trainer.precision bf16-true would
    assert made.fitted == 0
