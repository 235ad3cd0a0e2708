"""Conditions and their algebra against exact numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lebm.conditions import (
    ClassCondition,
    Condition,
    LogFactor,
    Near,
    Observed,
    as_condition,
    draw_given,
    parsed,
)
from lebm.models import GaussianLikelihood, IdentityGenerator, LatentClassifier

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [-1.0, 0.3, 2.0], [0.1, 0.2, 0.3]])


class Table(nn.Module):
    """Logits of four discrete states, given as ``z: (B, 1)`` in 0 to 3."""

    classes = 3

    def forward(self, z: Tensor) -> Tensor:
        return LOGITS[z[:, 0].long()].to(z)


STATES = torch.arange(4.0, dtype=torch.float64)[:, None]
P = LOGITS.double().softmax(dim=1)
TABLE = Table()


def of(label: int) -> Condition:
    return ClassCondition(TABLE, label)


def plain(factors: list[float]) -> Condition:
    """Probabilities of the four states, of which nothing else is known."""
    return LogFactor(lambda z: torch.tensor(factors).double().log()[z[:, 0].long()], is_probability=True)


A, B = [0.9, 0.2, 0.45, 0.7], [0.1, 0.4, 0.5, 0.6]
a, b = torch.tensor(A).double(), torch.tensor(B).double()


@pytest.mark.parametrize(
    ("condition", "factor"),
    [
        (of(0), P[:, 0]),
        (of(0) | of(2), P[:, 0] + P[:, 2]),
        (of(0) | of(0), P[:, 0]),
        (~of(0), P[:, 1] + P[:, 2]),
        (~(of(0) | of(2)), P[:, 1]),
        (of(0) & of(2), P[:, 0] * P[:, 2]),
        (~(of(0) & of(2)), 1 - P[:, 0] * P[:, 2]),
        (of(0) & ~of(0), P[:, 0] * (1 - P[:, 0])),
        (2 * of(1), P[:, 1] ** 2),
        (plain(A) & plain(B), a * b),
        (plain(A) | plain(B), a + b),
        (~plain(A), 1 - a),
        (~~plain(A), a),
        (~(plain(A) | plain(B)), (1 - a) * (1 - b)),
        (~plain(A) | of(2), 1 - a + P[:, 2]),
        (~(3 * plain(A)), 1 - a**3),
    ],
)
def test_the_algebra_on_four_states(condition: Condition, factor: Tensor) -> None:
    torch.testing.assert_close(condition(STATES).exp(), factor, rtol=1e-6, atol=1e-6)


def test_a_function_that_is_no_probability_is_divided_by() -> None:
    square = as_condition(lambda z: 3 * z[:, 0])
    torch.testing.assert_close((~square)(STATES), -3 * STATES[:, 0])
    assert not (~square).is_probability
    assert not (square & of(0)).is_probability
    assert (of(0) & plain(A)).is_probability
    assert not (of(0) | plain(A)).is_probability
    function = lambda z: 3 * z[:, 0]  # noqa: E731
    for one, other in ((of(0) & function, function & of(0)), (of(0) | function, function | of(0))):
        assert torch.equal(one(STATES), other(STATES))
    assert torch.equal((of(0) * 2)(STATES), (2 * of(0))(STATES))


def test_which_states_meet_a_condition() -> None:
    assert of(0).met(STATES).tolist() == [True, False, False, False]
    assert (~of(0)).met(STATES).tolist() == [False, True, True, True]
    assert (plain(A) | of(2)).met(STATES).tolist() == [True, False, True, True]
    assert (plain(A) & of(0)).met(STATES).tolist() == [True, False, False, False]
    assert (10 * plain(A)).met(STATES).tolist() == [True, False, False, True]
    z = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    assert Near(torch.zeros(2)).met(z).tolist() == [True, False]
    assert (~Near(torch.zeros(2))).met(z).tolist() == [False, True]
    assert as_condition(lambda z: -z[:, 0]).met(z).tolist() == [True, True]


def test_the_negation_stays_finite_where_the_condition_is_sure() -> None:
    z = torch.zeros(1, 2, requires_grad=True)
    value = (~Near(torch.zeros(2)))(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert -20 < float(value.detach()) < -10
    assert bool(slope.isfinite().all())


def test_words_of_the_command_line() -> None:
    names = ["cat", "dog", "sea bird"]
    for text, factor in {
        "cat": P[:, 0],
        "0": P[:, 0],
        "sea bird": P[:, 2],
        "~cat": 1 - P[:, 0],
        "cat | dog": P[:, 0] + P[:, 1],
        "cat&~dog|2": P[:, 0] * (1 - P[:, 1]) + P[:, 2],
    }.items():
        torch.testing.assert_close(parsed(text, TABLE, names)(STATES).exp(), factor)
    with pytest.raises(ValueError, match="'bird' is not a class; the classes are cat, dog, sea bird"):
        parsed("cat|bird", TABLE, names)
    torch.testing.assert_close(parsed("3", TABLE, ["1", "2", "3"])(STATES).exp(), P[:, 2])
    with pytest.raises(ValueError, match="'0' is not a class; the classes are 1, 2, 3"):
        parsed("0", TABLE, ["1", "2", "3"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClassCondition(TABLE, 3), "label 3: the classes are 0 to 2"),
        (lambda: ClassCondition(TABLE, [0, 1, 2]), "3 of 3 classes are not a condition"),
        (lambda: ClassCondition(lambda z: z, 0), "needs the number of classes"),
        (lambda: Near(torch.zeros(2), sigma=0.0), "sigma must be positive"),
        (lambda: Near(torch.zeros(2, 1)) & Near(torch.zeros(3, 1)), "on 2 and on 3 rows"),
        (lambda: -1 * of(0), "weight of a condition must be positive"),
        (lambda: Observed(torch.zeros(2))(torch.zeros(1, 2)), "needs a likelihood"),
        (
            lambda: Observed(torch.zeros(3), likelihood=GaussianLikelihood(IdentityGenerator(2))),
            r"has the shape \(3,\), but this model decodes to \(2,\)",
        ),
    ],
)
def test_what_cannot_be(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_an_observation_sees_what_its_mask_and_operator_show() -> None:
    likelihood = GaussianLikelihood(IdentityGenerator(latent_dim=4), sigma=0.5)
    z = torch.tensor([[0.0, 1.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    x = torch.tensor([1.0, 1.0, 0.0, 3.0])
    whole = Observed(x).on(likelihood)
    torch.testing.assert_close(whole(z), -((z - x).square().sum(dim=1)) / (2 * 0.25))
    torch.testing.assert_close(  # the shape of the normalised likelihood, less its constant
        whole(z)[0] - whole(z)[1], -likelihood.log_prob(x[None], z).diff()[0]
    )
    half = Observed(x, mask=torch.tensor([True, False, False, True]), sigma=1.0).on(likelihood)
    torch.testing.assert_close(half(z), -0.5 * torch.tensor([2.0, 4.0]))
    unseen = Observed(x.masked_fill(torch.tensor([False, True, True, False]), torch.nan), half.mask, 1.0)
    torch.testing.assert_close(unseen.on(likelihood)(z), half(z))  # NaN marks hidden pixels
    means = Observed(torch.tensor([0.5, 3.5]), sigma=1.0, operator=lambda y: y.unflatten(1, (2, 2)).mean(2))
    torch.testing.assert_close((~~means).on(likelihood)(z), -0.5 * torch.tensor([0.25, 0.25 + 6.25]))
    two = Observed(torch.stack([x, z[0]]), sigma=1.0).on(likelihood)
    assert two.rows == (two & of(0)).rows == 2
    pairs = z[[0, 1, 0, 1]]  # two draws for the first observation, two for the second
    expected = (pairs - torch.stack([x, x, z[0], z[0]])).square().sum(dim=1) / -2
    torch.testing.assert_close(two(pairs), expected)


def _mixture(z: Tensor) -> Tensor:
    """Half N(-3, 1/4), half N(3, 1/4) in the first coordinate, N(0, 1) in the second."""
    two = torch.logaddexp(-2 * (z[:, 0] - 3).square(), -2 * (z[:, 0] + 3).square())
    return two - 0.5 * z[:, 1].square()


def _draws(n: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(n, 2, generator=generator)
    sign = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
    z[:, 0] = 0.5 * z[:, 0] + 3 * sign
    return z


def _grid(condition: Condition) -> tuple[float, float]:
    """Mean of the first coordinate and evidence, by quadrature."""
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    prior = _mixture(z).softmax(dim=0)
    weighted = prior * condition(z).exp()
    return float((weighted * z[:, 0]).sum() / weighted.sum()), float(weighted.sum().log())


LEFT = LogFactor(lambda z: nn.functional.logsigmoid(-2 * z[:, 0] - 1), is_probability=True)
HIGH = LogFactor(lambda z: nn.functional.logsigmoid(4 * z[:, 1] - 2), is_probability=True)


@pytest.mark.parametrize(
    "condition",
    [
        LEFT,
        ~LEFT,
        LEFT & HIGH,
        LEFT | HIGH,
        ~(LEFT | HIGH),
        2 * HIGH & ~(8 * LEFT),
        Near(torch.tensor([3.0, 2.0]), 0.1),
    ],
)
def test_draws_of_a_mixture_agree_with_quadrature(condition: Condition) -> None:
    generator = torch.Generator().manual_seed(1)
    n = 2000
    drawn = draw_given(_mixture, condition, _draws(8000, generator), n, generator)
    mean, evidence = _grid(condition)
    # The draws are chosen of at least n effective particles: the choice and its particles add two variances.
    error = float(drawn.z[:, 0].std()) * math.sqrt(2 / n)
    assert abs(float(drawn.z[:, 0].mean()) - mean) < 4 * error
    assert abs(float(drawn.log_evidence) - evidence) < 0.1 * drawn.levels
    assert 0.3 < drawn.acceptance < 0.9


def test_groups_of_draws_have_conditions_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    near = Near(torch.tensor([[2.0], [-2.0], [0.0]]), sigma=0.5)
    start = torch.randn(3000, 1, generator=generator)
    monkeypatch.setattr("lebm.conditions.drawing._MOVES", 0)
    drawn = draw_given(lambda z: -0.5 * z.square().sum(dim=1), near, start, 600, generator)
    groups = drawn.z.reshape(3, 200)  # N(z0 / (1 + s^2), s^2 / (1 + s^2))
    expected = torch.tensor([1.6, -1.6, 0.0])
    assert float((groups.mean(dim=1) - expected).abs().max()) < 4 * math.sqrt(0.2 * 2 / 200)
    exact = 0.5 * math.log(0.2) - torch.tensor([4.0, 4.0, 0.0]) / (2 * 1.25)
    torch.testing.assert_close(drawn.log_evidence.float(), exact, atol=0.2, rtol=0)
    with pytest.raises(ValueError, match="not a multiple of the 3 rows"):
        draw_given(lambda z: -z.square().sum(dim=1), near, start, 100, generator)


def test_a_classifier_is_calibrated_on_two_clouds() -> None:
    """Two Gaussians whose class probability is a logistic function, known exactly."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (20_000,), generator=generator)
    z = torch.randn(20_000, 2, generator=generator) + torch.stack([2.0 * y - 1, 0 * y], dim=1)
    before = torch.get_rng_state()
    unlabelled = torch.cat([z, torch.full((50, z.shape[1]), 99.0)]), torch.cat([y, torch.full((50,), -1)])
    classifier = LatentClassifier.fit(z, y, epochs=5)
    assert torch.equal(LatentClassifier.fit(*unlabelled, epochs=5)(z), classifier(z))
    assert torch.equal(before, torch.get_rng_state())
    at = torch.tensor([[-1.0, 0.0], [0.0, 0.5], [0.5, -1.0], [2.0, 0.0]])
    exact = (2 * at[:, 0]).sigmoid()
    found = ClassCondition(classifier, 1)(at).exp()
    assert float((found - exact).abs().max()) < 0.05
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
