from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from torch import Tensor, nn

from lebm.models import Energy, EnergyPrior, MLPEnergy, StandardNormal
from lebm.samplers import Langevin, Noise
from lebm.samplers.langevin import values


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior(dim: int, hidden: list[int]) -> EnergyPrior:
    torch.manual_seed(0)
    return EnergyPrior(MLPEnergy(dim, hidden))


def compiled_and_eager_agree(dim: int, hidden: list[int], rows: int, **settings: object) -> None:
    target, init = prior(dim, hidden), torch.randn(rows, dim, generator=source())
    eager, eager_info = Langevin(60, 0.4, **settings).run(target.log_density, init, source(1))  # type: ignore[arg-type]
    sampler = Langevin(60, 0.4, compile=True, **settings)  # type: ignore[arg-type]
    compiled, info = sampler.run(target.log_density, init, source(1))
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=0)
    torch.testing.assert_close(info.extra, eager_info.extra, atol=1e-4, rtol=0)
    torch.testing.assert_close(info.gradient_norm, eager_info.gradient_norm, atol=1e-4, rtol=0)
    assert ("acceptance" in info.extra) == ("clamp" not in settings)
    assert torch.equal(compiled, sampler(target.log_density, init, source(1)))


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and differentiate the whole graph, but run it without generating code, which takes most of a
    minute from cold.
    """
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    )


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("settings", [{}, {"clamp": (-1.5, 1.5)}], ids=["free", "clamped"])
def test_compiled_chain_is_the_eager_chain(settings: dict) -> None:
    compiled_and_eager_agree(
        4, [8], 6, unroll=2, max_grad_norm=1.0, preconditioner=[0.5, 1, 1, 2], **settings
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"max_grad_norm": 1.0, "clamp": (-1.5, 1.5)}], ids=["plain", "guarded"]
)
def test_compiled_chain_is_the_eager_chain_at_full_size(settings: dict) -> None:
    compiled_and_eager_agree(100, [200, 200], 100, **settings)


@pytest.mark.usefixtures("captured")
def test_compiled_schedules_and_changed_parameters_are_followed() -> None:
    target, init = prior(4, [8]), torch.randn(6, 4, generator=source())
    sampler, eager = (
        Langevin(10, [0.4, 0.2], temperature=[2.0, 1.0], compile=True, unroll=2),
        Langevin(10, [0.4, 0.2], temperature=[2.0, 1.0]),
    )
    for _ in range(2):
        found, expected = (
            sampler(target.log_density, init, source(1)),
            eager(target.log_density, init, source(1)),
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        with torch.no_grad():
            next(target.parameters()).mul_(-2.0)
        sampler.step_scale = eager.step_scale = 0.5


@pytest.mark.usefixtures("captured")
def test_a_used_compiled_sampler_can_be_copied_and_pickled() -> None:
    target, init = prior(4, [8]), torch.randn(6, 4, generator=source())
    sampler = Langevin(5, 0.4, compile=True, unroll=2)
    expected = sampler(target.log_density, init, source())
    assert torch.equal(copy.deepcopy(sampler)(target.log_density, init, source()), expected)
    loaded = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(loaded(target.log_density, init, source()), expected)


def test_the_published_loop_from_the_same_noise() -> None:
    """The update as the LEBM scripts write it, one gradient at a time."""
    target, z = prior(5, [7]), torch.randn(4, 5, generator=source())
    found = Langevin(10, 0.4)(target.log_density, z, source(1))
    kicks = torch.randn(10, 4, 5, generator=source(1))
    for kick in kicks:
        z = z.clone().requires_grad_(True)
        slope = torch.autograd.grad(target.energy(z).sum(), z)[0]
        z = (z - 0.5 * 0.4 * 0.4 * (slope + z) + 0.4 * kick).detach()
    torch.testing.assert_close(found, z, atol=1e-6, rtol=0)


def test_an_energy_that_does_not_depend_on_the_state_leaves_the_reference() -> None:
    class Flat(Energy):
        latent_dim = 3

        def __init__(self, learned: bool) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.ones(())) if learned else torch.ones(())

        def forward(self, z: Tensor) -> Tensor:
            return self.level.expand(z.shape[0])

    init = torch.randn(4, 3, generator=source())
    expected = Langevin(5, 0.4)(StandardNormal(3).log_density, init, source(1))
    for learned in (False, True):
        found = Langevin(5, 0.4)(EnergyPrior(Flat(learned)).target(), init, source(1))
        torch.testing.assert_close(found, expected)


def test_an_adapted_step_is_saved_restored_and_used() -> None:
    target, init = prior(4, [8]), torch.randn(6, 4, generator=source())
    sampler = Langevin(5, 0.4)
    sampler.step_scale = 0.5
    resumed = Langevin(5, 0.4)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.step_scale == 0.5
    expected = Langevin(5, 0.2)(target.log_density, init, source())
    torch.testing.assert_close(resumed(target.log_density, init, source()), expected)


def test_long_chains_are_drawn_in_pieces_that_do_not_depend_on_the_layout() -> None:
    target, init = prior(3, [4]), torch.randn(8, 3, generator=source())
    whole = Langevin(35, 0.3)(target.log_density, init, Noise.shards("a", shards=2))
    half = Langevin(35, 0.3)(target.log_density, init[4:], Noise.shards("a", shards=2, rank=1, world_size=2))
    torch.testing.assert_close(whole[4:], half, atol=1e-5, rtol=0)


def test_schedules() -> None:
    assert values(0.3, 3) == [0.3] * 3
    assert values([3.0, 2.0, 1.0], 2) == [3.0, 2.0]
    assert values([3.0, 2.0], 4) == [3.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1, "step_size": 0.1}, "steps must be at least 0"),
        ({"steps": 1, "step_size": 0.0}, "step_size must be positive"),
        ({"steps": 1, "step_size": float("nan")}, "step_size must be positive"),
        ({"steps": 2, "step_size": [0.1, 0.1, 0.1]}, "step_size has 3 entries"),
        ({"steps": 2, "step_size": []}, "step_size has 0 entries"),
        ({"steps": 1, "step_size": 0.1, "noise_scale": -0.1}, "noise_scale must not be negative"),
        ({"steps": 1, "step_size": 0.1, "temperature": [-1.0]}, "temperature must not be negative"),
        ({"steps": 1, "step_size": 0.1, "temperature": 1.0, "noise_scale": 0.1}, "not both"),
        ({"steps": 1, "step_size": 0.1, "max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"steps": 1, "step_size": 0.1, "clamp": (1.0, -1.0)}, "clamp must be"),
        ({"steps": 1, "step_size": 0.1, "unroll": 0}, "unroll must be at least 1"),
        ({"steps": 1, "step_size": 0.1, "preconditioner": [1.0, -1.0]}, "preconditioner needs positive"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Langevin(**arguments)


def test_a_preconditioner_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 entries but a row of the state has 3"):
        Langevin(1, 0.1, preconditioner=[1.0, 1.0])(lambda z: z.sum(1), torch.zeros(2, 3))
