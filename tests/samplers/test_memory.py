"""A chain keeps no graph and no history: its peak of live tensors does not grow with its steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lebm.samplers import (
    HMC,
    MALA,
    Langevin,
    ParallelTempering,
    PersistentChains,
    Sampler,
    SamplingImportanceResampling,
)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages made inside, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


MAKERS: dict[str, Callable[[], Sampler]] = {
    "Langevin": lambda: Langevin(1, 0.1),
    "scheduled Langevin": lambda: Langevin(2, [0.2, 0.1], temperature=[2.0, 1.0], preconditioner=[1.0] * 16),
    "MALA": lambda: MALA(1, 0.1),
    "HMC": lambda: HMC(1, 0.1, leapfrog_steps=2),
    "ParallelTempering": lambda: ParallelTempering(MALA(1, 0.1), [1.0, 2.0], 1),
    "PersistentChains": lambda: PersistentChains(Langevin(1, 0.1)),
    "SIR": lambda: SamplingImportanceResampling(4),
}


def peak(make: Callable[[], Sampler], steps: int) -> int:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1))
    init = torch.randn(64, 16)
    with PeakMemory() as memory:
        make().run(
            lambda z: net(z).squeeze(1) - z.square().sum(1),
            init,
            torch.Generator().manual_seed(0),
            steps=steps,
        )
    return memory.peak


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_two_hundred_steps_more_have_the_same_peak(make: Callable[[], Sampler]) -> None:
    short, long = peak(make, 20), peak(make, 220)
    assert short > 64 * 32 * 4, "the meter must see the hidden layer"
    assert abs(long - short) < 200 * 4, "one number per step is too much"


def test_the_meter_sees_a_graph_that_is_kept() -> None:
    net = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1))

    def leak(steps: int) -> int:
        with PeakMemory() as memory:
            state = torch.randn(64, 16, requires_grad=True)
            for _ in range(steps):
                state = state + torch.autograd.grad(net(state).sum(), state, create_graph=True)[0]
        return memory.peak

    assert leak(20) > 3 * leak(5)
