"""A compiled chain is traced once per shape and kind of block, and never again; nothing breaks its graph.

The backend ``eager`` runs the traced graph as it is, so no code is generated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator, RatioPrior, RatioProduct
from lebm.samplers import Langevin, Noise, PersistentChains, Sampler
from lebm.samplers.compiled import CompiledSteps
from lebm.samplers.langevin import advance

DIM, BATCH, LAST = 3, 8, 5


@pytest.fixture(autouse=True)
def _traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def breaks() -> int:
    return sum(counters["graph_break"].values())


SETTINGS: dict[str, Callable[[], Langevin]] = {
    "plain": lambda: Langevin(4, 0.3, compile=True, unroll=2),
    "annealed": lambda: Langevin(4, [0.4, 0.3, 0.2], temperature=[2.0, 1.0], compile=True, unroll=2),
    "guarded": lambda: Langevin(4, 0.3, max_grad_norm=1.0, clamp=(-2.0, 2.0), compile=True, unroll=2),
    "preconditioned": lambda: Langevin(4, 0.3, preconditioner=[0.5, 1.0, 2.0], compile=True, unroll=2),
    "rest of a block": lambda: Langevin(5, 0.3, compile=True, unroll=2),
}
KINDS = {"rest of a block": 2}
"""Blocks of 2 steps and one of 1; all other chains here have blocks of 2 only."""


def prior() -> EnergyPrior:
    torch.manual_seed(0)
    return EnergyPrior(MLPEnergy(DIM, [8, 8]))


def move(
    sampler: Sampler, target: Callable[[Tensor], Tensor], rows: int, seed: int, device: torch.device
) -> Tensor:
    return sampler(target, torch.zeros(rows, DIM, device=device), Noise.shards(seed, shards=2))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_chain_has_one_graph_per_shape_and_block(name: str, device: torch.device) -> None:
    """Training, its last smaller batch, evaluation, and training again: two shapes."""
    sampler, model = SETTINGS[name]().to(device), prior().to(device)
    kinds = KINDS.get(name, 1)
    for step in range(2):
        move(sampler, model.target(), BATCH, step, device)
        assert graphs() == kinds
    move(sampler, model.target(), LAST, 2, device)
    expected = 2 * kinds
    assert graphs() == expected
    for mode in (False, True, False):
        model.train(mode)
        sampler.train(mode)
        for rows in (BATCH, LAST):
            with torch.no_grad():  # as an optimiser step does
                for parameter in model.parameters():
                    parameter.mul_(1.01)
            move(sampler, model.target(), rows, 3, device)
    assert (graphs(), breaks()) == (expected, 0)


def test_a_posterior_gets_no_graph_per_batch(device: torch.device) -> None:
    """The target is a fresh closure over other data in every step."""
    torch.manual_seed(0)
    likelihood, own = (
        GaussianLikelihood(MLPGenerator(DIM, (1, 2, 2), hidden=[8])).to(device),
        prior().to(device),
    )
    sampler = Langevin(4, 0.1, compile=True, unroll=2)
    for step in range(4):
        given = likelihood.given(torch.randn(BATCH, 1, 2, 2, device=device))
        move(sampler, lambda z, given=given: given(z) + own.log_density(z), BATCH, step, device)
        assert graphs() == 1
    assert breaks() == 0


def test_a_pool_compiles_its_kernel_once(device: torch.device) -> None:
    sampler, model = (
        PersistentChains(Langevin(4, 0.3, compile=True, unroll=2), restart_rate=0.2),
        prior().to(device),
    )
    for step, rows in enumerate((BATCH, BATCH, LAST, BATCH, LAST)):
        move(sampler, model.target(), rows, step, device)
    sampler.eval()
    move(sampler, model.target(), BATCH, 9, device)
    assert (graphs(), breaks()) == (2, 0)


def test_two_samplers_do_not_count_against_each_other(device: torch.device) -> None:
    """Torch limits the graphs of one code object, so each sampler has its own."""
    model = prior().to(device)
    chains = [Langevin(4, 0.3, compile=True, unroll=2) for _ in range(3)]
    for _ in range(2):
        for sampler in chains:
            move(sampler, model.target(), BATCH, 0, device)
    assert (graphs(), breaks()) == (3, 0)


def test_a_stage_costs_one_graph_at_most(device: torch.device) -> None:
    """The number of finished stages is a Python number of the prior, and a new stage is a new function."""
    model = RatioPrior(RatioProduct(MLPEnergy(DIM, [8], output_bias=True), max_stages=3)).to(device)
    sampler = Langevin(4, 0.3, compile=True, unroll=2)
    for stage in range(3):
        model.tilt.switch()
        for step in range(3):
            move(sampler, model.log_density_so_far(), BATCH, step, device)
        assert graphs() <= stage + 1
    assert breaks() == 0


@pytest.mark.parametrize("chosen", [None, "max-autotune"])
def test_a_gpu_gets_cuda_graphs_by_default(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch, "compile", lambda steps, *, mode, dynamic: modes.append(mode))
    for place in ("cpu", "cuda"):
        CompiledSteps(advance, 2, chosen)._compiled_for((2, 3, 4), torch.device(place))
    assert modes == ([chosen] * 2 if chosen else ["default", "reduce-overhead"])
