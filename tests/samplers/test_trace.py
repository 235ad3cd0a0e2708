"""Chains with one known illness each are diagnosed with it, and healthy ones with none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lebm.samplers import HMC, MALA, Langevin
from lebm.samplers.trace import Trace, findings, record, suggested_step
from tests.ground_truth.targets import mixture


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(dim=1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(32, 3, generator=source())


def kinds(trace: Trace, **settings: float) -> list[str]:
    return [finding.kind for finding in findings(trace, **settings)]  # type: ignore[arg-type]


def test_a_trace_is_the_chain_in_pieces() -> None:
    trace = record(Langevin(1, 0.3), standard, start(), source(), draws=8, thin=2)
    state, generator = start(), source()
    for position in range(1, 9):
        state = Langevin(2, 0.3)(standard, state, generator)
        assert torch.equal(trace.states[position], state)
    torch.testing.assert_close(trace.log_density, standard(trace.states.flatten(0, 1)).reshape(9, 32))
    assert trace.acceptance is not None
    assert trace.acceptance.shape == (8, 32)
    torch.testing.assert_close(trace.radius, trace.states.square().mean(2).sqrt())


@pytest.mark.parametrize(
    "sampler", [Langevin(60, 0.6), MALA(60, 0.9), HMC(10, 0.4)], ids=lambda s: type(s).__name__
)
def test_healthy(sampler: Langevin | MALA | HMC) -> None:
    found = findings(record(sampler, standard, start(), source(), draws=100, thin=3), short_run=60)
    assert [finding.kind for finding in found] == ["healthy"]
    assert "split R-hat at most 1.0" in found[0].text


def test_step_too_large() -> None:
    narrow = lambda z: 12.0 * standard(z)  # noqa: E731
    trace = record(Langevin(1, 0.55), narrow, start(0.3), source(), draws=100, thin=2)
    step = suggested_step(Langevin(1, 0.55), narrow, trace.states[-1], source())
    assert step is not None
    assert 0.3 < step < 0.54
    found = findings(trace, better_step=step)
    assert [finding.kind for finding in found] == ["step too large"]
    assert f"suggests a step of {step:.3g}" in found[0].text


def test_step_too_small_and_not_mixing() -> None:
    assert kinds(record(Langevin(1, 0.02), standard, start(), source(), draws=50, thin=2)) == [
        "step too small",
        "not mixing",
    ]


def test_a_suggestion_never_contradicts_its_finding() -> None:
    wide = record(Langevin(1, 0.55), lambda z: 12.0 * standard(z), start(0.3), source(), draws=100, thin=2)
    (large,) = findings(wide, better_step=0.7, step=0.55)
    assert large.kind == "step too large"
    assert "suggests" not in large.text
    assert large.text.endswith("; lower the step of 0.55")
    (large,) = findings(wide, better_step=0.4, step=0.55)
    assert large.text.endswith("suggests a step of 0.4 instead of 0.55")

    slow = record(Langevin(1, 0.02), standard, start(), source(), draws=50, thin=2)
    small, mixing = findings(slow, better_step=1.64, step=0.02)
    assert small.text.endswith("suggests a step of 1.64 instead of 0.02")
    assert mixing.text.endswith("; fix the step size first")
    assert findings(slow, better_step=0.01, step=0.02)[0].text.endswith("; raise the step of 0.02")


def test_not_mixing() -> None:
    apart = mixture(distance=6.0, weight=0.5).log_density
    init = torch.randn(32, 2, generator=source()) + torch.where(torch.arange(32) < 16, -6.0, 6.0).unsqueeze(
        1
    ) * torch.tensor([1.0, 0.0])
    assert kinds(record(MALA(1, 0.9), apart, init, source(), draws=100, thin=3)) == ["not mixing"]
    assert "take more steps" in findings(record(MALA(1, 0.9), apart, init, source(), thin=3))[0].text


def test_running_away() -> None:
    assert "running away" in kinds(
        record(Langevin(1, 0.3), lambda z: 0.02 * z.square().sum(1), start(), source(), draws=100, thin=10)
    )


def test_non_finite() -> None:
    found = findings(
        record(Langevin(1, 3.0), lambda z: -z.pow(4).sum(1), start(), source(), draws=20, thin=2)
    )
    assert [finding.kind for finding in found] == ["non-finite"]
    assert "chains became non-finite" in found[0].text


def test_short_run_not_settled() -> None:
    trace = record(Langevin(5, 0.4), standard, start() + 5.0, source(), draws=200, thin=5)
    assert kinds(trace, short_run=5) == ["short run not settled"]
    assert kinds(trace, short_run=400) == ["healthy"]


def test_the_suggestion_leaves_the_sampler_alone() -> None:
    sampler = MALA(1, 0.01)
    assert suggested_step(sampler, standard, start(), source()) > 0.3  # type: ignore[operator]
    assert sampler.step_scale == 1.0
    assert suggested_step(Langevin(1, 0.1, noise_scale=0.0), standard, start(), source()) is None
    assert suggested_step(Langevin(2, [0.2, 0.1]), standard, start(), source()) is None


def test_rows_with_targets_of_their_own_are_compared_within_a_target() -> None:
    centres = torch.arange(8.0).repeat_interleave(4).unsqueeze(1)
    target = lambda z: -0.5 * (z - centres).square().sum(1)  # noqa: E731
    init = torch.randn(32, 3, generator=source()) + centres
    trace = record(Langevin(1, 0.6), target, init, source(), draws=100, thin=5, targets=8)
    assert trace.settled.shape == (51, 4, 8, 3)
    assert torch.equal(trace.settled[:, 1, 2], trace.states[50:, 9])
    assert kinds(trace) == ["healthy"]
    trace.targets = 1
    assert kinds(trace) == ["not mixing"]
    with pytest.raises(ValueError, match="32 chains do not divide among 5 targets"):
        record(Langevin(1, 0.6), target, init, source(), targets=5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="draws of at least 8"):
        record(MALA(1, 0.1), standard, start(), source(), draws=3)
