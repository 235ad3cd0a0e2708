"""One battery for every sampler class in the package: a new one without a case here fails the suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import lebm.samplers
from lebm.checkpoint.rebuild import filled
from lebm.component import describe
from lebm.samplers import (
    HMC,
    MALA,
    IndependenceMetropolis,
    Info,
    Langevin,
    Masked,
    Noise,
    ParallelTempering,
    PersistentChains,
    Sampler,
    SamplingImportanceResampling,
)

EVENT = (2, 3)
ROWS = 8


@dataclass
class Case:
    make: Callable[[], Sampler]
    exact: bool
    keeps_finite: bool  # rejects what is not finite, instead of carrying it along and counting it


CASES = {
    Langevin: Case(lambda: Langevin(12, 0.3), exact=False, keeps_finite=False),
    MALA: Case(lambda: MALA(12, 0.3), exact=True, keeps_finite=True),
    HMC: Case(lambda: HMC(4, 0.3, leapfrog_steps=3), exact=True, keeps_finite=True),
    ParallelTempering: Case(
        lambda: ParallelTempering(MALA(1, 0.3), [1.0, 2.0, 4.0], 5), exact=False, keeps_finite=True
    ),
    PersistentChains: Case(
        lambda: PersistentChains(MALA(6, 0.3), slots=2, restart_rate=0.2), exact=True, keeps_finite=True
    ),
    SamplingImportanceResampling: Case(
        lambda: SamplingImportanceResampling(8, steps=2), exact=True, keeps_finite=True
    ),
    IndependenceMetropolis: Case(lambda: IndependenceMetropolis(12), exact=True, keeps_finite=True),
    Masked: Case(
        lambda: Masked(Langevin(12, 0.3), [True, False, False, False, True, False]),
        exact=False,
        keeps_finite=False,
    ),
}
OPTIONS = {
    "annealed": lambda: Langevin(12, [0.4, 0.3, 0.2], temperature=[2.0, 1.0]),
    "preconditioned": lambda: Langevin(12, 0.3, preconditioner=[0.5, 1, 1, 1, 1, 2]),
    "guarded": lambda: Langevin(12, 0.3, max_grad_norm=1.0, clamp=(-2.0, 2.0)),
    "preconditioned HMC": lambda: HMC(4, 0.2, leapfrog_steps=2, preconditioner=[0.5, 1, 1, 1, 1, 2]),
    "shared SIR": lambda: SamplingImportanceResampling(8, steps=2, shared_target=True),
}
MAKERS = {cls.__name__: case.make for cls, case in CASES.items()} | OPTIONS

every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
every_class = pytest.mark.parametrize("case", CASES.values(), ids=[cls.__name__ for cls in CASES])


class Target(nn.Module):
    """A log-density with parameters, so that gradients could leak into them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, state: Tensor) -> Tensor:
        return self.net(state).squeeze(1) - 0.5 * state.flatten(1).square().sum(dim=1)


def start(seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(ROWS, *EVENT, generator=torch.Generator().manual_seed(seed)).to(dtype)


def source(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def concrete_samplers() -> set[type[Sampler]]:
    for module in pkgutil.iter_modules(lebm.samplers.__path__, "lebm.samplers."):
        importlib.import_module(module.name)
    found, queue = set(), [Sampler]
    while queue:
        for cls in queue.pop().__subclasses__():
            queue.append(cls)
            if cls.__module__.startswith("lebm.") and not inspect.isabstract(cls):
                found.add(cls)
    return found


def test_every_sampler_has_a_case() -> None:
    assert concrete_samplers() == set(CASES), "a sampler without a case: add it to CASES of this file"


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_device(make: Callable[[], Sampler], dtype: torch.dtype, device: torch.device) -> None:
    target, init = Target().to(device, dtype), start(dtype=dtype).to(device)
    generator = torch.Generator(device).manual_seed(0)
    state, info = make().to(device).run(target, init, generator)
    assert (state.shape, state.dtype, state.device) == (init.shape, init.dtype, init.device)
    assert state.is_leaf
    assert not state.requires_grad
    assert not torch.equal(state, init)
    assert info.gradient_norm.shape == info.displacement.shape == info.log_density_change.shape == (ROWS,)
    assert info.nonfinite.item() == 0
    assert all(torch.isfinite(value) and value.dim() == 0 for value in info.scalars().values())
    torch.testing.assert_close(info.displacement, (state - init).flatten(1).norm(dim=1))
    with torch.no_grad():
        torch.testing.assert_close(info.log_density_change, target(state) - target(init))


@every
def test_the_generator_decides_everything(make: Callable[[], Sampler]) -> None:
    target, init = Target(), start()
    before = torch.get_rng_state()
    first = make()(target, init, source())
    assert torch.equal(torch.get_rng_state(), before), "global random state was touched"
    assert torch.equal(first, make()(target, init, source()))
    assert not torch.equal(first, make()(target, init, source(3)))
    torch.manual_seed(5)
    unkeyed = make()(target, init)
    torch.manual_seed(5)
    assert torch.equal(unkeyed, make()(target, init))


@every
def test_run_is_the_same_chain(make: Callable[[], Sampler]) -> None:
    quiet, loud = source(), source()
    state, _ = make().run(Target(), start(), loud)
    assert torch.equal(make()(Target(), start(), quiet), state)
    assert torch.equal(quiet.get_state(), loud.get_state()), "asking for the record used up randomness"


@every
def test_no_gradients_are_left(make: Callable[[], Sampler]) -> None:
    target, init = Target(), start().requires_grad_(True)
    make()(target, init, source())
    assert init.grad is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in target.parameters())


@every
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_surrounding_grad_mode_does_not_matter(make: Callable[[], Sampler], mode: Callable) -> None:
    target = Target()
    expected = make()(target, start(), source())
    with mode():
        state, _ = make().run(target, start(), source())
    assert torch.equal(state, expected)
    assert not state.is_inference()


@every
def test_start_is_not_modified_and_zero_steps_return_it(make: Callable[[], Sampler]) -> None:
    init = start()
    make()(Target(), init, source())
    assert torch.equal(init, start())
    state, info = make().run(Target(), init, source(), steps=0)
    assert torch.equal(state, init)
    assert info.displacement.eq(0).all()
    state.add_(1)
    assert torch.equal(init, start())


@every
def test_rows_are_independent(make: Callable[[], Sampler]) -> None:
    moved = start()
    moved[0] += 0.5
    assert torch.equal(make()(Target(), start(), source())[1:], make()(Target(), moved, source())[1:])


@every
@pytest.mark.parametrize("processes", [2, 4])
def test_rows_do_not_depend_on_the_number_of_processes(make: Callable[[], Sampler], processes: int) -> None:
    init, target = start(dtype=torch.float64), Target().double()
    alone = make()(target, init, Noise.shards(1, "chain", shards=4))
    shares = init.chunk(processes)
    spread = [
        make()(target, share, Noise.shards(1, "chain", shards=4, rank=r, world_size=processes))
        for r, share in enumerate(shares)
    ]
    torch.testing.assert_close(torch.cat(spread), alone, rtol=0, atol=1e-12)


@every_class
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_is_handled_as_documented_and_touches_no_other(case: Case, bad: float) -> None:
    factor = torch.ones(ROWS)
    factor[0] = bad
    healthy = case.make()(lambda z: -0.5 * z.flatten(1).square().sum(1), start(), source())
    state, info = case.make().run(lambda z: -0.5 * factor * z.flatten(1).square().sum(1), start(), source())
    assert torch.equal(state[1:], healthy[1:])
    assert info.nonfinite.item() == (0 if case.keeps_finite else 1)
    assert torch.isfinite(state[0]).all() == case.keeps_finite


@every_class
def test_a_start_that_is_not_finite_is_counted(case: Case) -> None:
    init = start()
    init[3] = torch.nan
    _, info = case.make().run(Target(), init, source())
    replaces = (SamplingImportanceResampling, IndependenceMetropolis)  # it by a draw of the proposal
    assert info.nonfinite.item() == (0 if isinstance(case.make(), replaces) else 1)


@every
def test_bf16_energies(make: Callable[[], Sampler]) -> None:
    half = Target().bfloat16()
    state = make()(lambda z: half(z.bfloat16()), start(), source())
    assert state.dtype == torch.float32
    assert torch.isfinite(state).all()
    state = make()(half, start(dtype=torch.bfloat16), source())
    assert state.dtype == torch.bfloat16
    assert torch.isfinite(state).all()


@every
def test_state_dict_and_description_hold_everything(make: Callable[[], Sampler]) -> None:
    used = make()
    used(Target(), start(), source())
    used(Target(), start(4), source(3))
    description = describe(used)
    copy = filled(description, Sampler, used.state_dict(), trust=["tests"])
    assert torch.equal(used(Target(), start(), source()), copy(Target(), start(), source()))
    assert isinstance(description, dict)
    assert description["class_path"].endswith(type(used).__name__)
    assert all(isinstance(value, Tensor) for value in used.state_dict().values())


@every_class
def test_exactness_is_declared(case: Case) -> None:
    assert case.make().exact is case.exact


@every
def test_bad_input_is_refused_in_a_line(make: Callable[[], Sampler]) -> None:
    with pytest.raises(ValueError, match="one number per row"):
        make()(lambda z: z.flatten(1), start(), source())
    with pytest.raises(ValueError, match="floating-point tensor"):
        make()(Target(), start().long(), source())
    with pytest.raises(ValueError, match="floating-point tensor"):
        make()(Target(), torch.zeros(4), source())
    with pytest.raises(ValueError, match="steps"):
        make()(Target(), start(), source(), steps=-1)


class Careless(Sampler):
    """Returns from its chain whatever it is given."""

    def __init__(self, returned: object) -> None:
        super().__init__(steps=1)
        self.returned = returned

    def _chain(self, log_density, start, generator, steps, want_info):
        return self.returned


PAIR = torch.zeros(2, 3)
INFO = Info(*[torch.zeros(2)] * 3, torch.zeros(()))


@pytest.mark.parametrize(
    "returned",
    [
        PAIR,  # two rows, which Python would unpack
        None,
        [PAIR, None],
        (PAIR, INFO, 1),
        (PAIR[:1], INFO),
    ],
)
def test_a_chain_that_returns_anything_else_is_refused_in_a_line(returned: object) -> None:
    sampler, message = Careless(returned), r"a state of shape \(2, 3\) and an Info"
    for call in (sampler, sampler.run):
        with pytest.raises(ValueError, match=f"^Careless._chain must return {message}"):
            call(lambda z: z.sum(dim=1), PAIR)


def test_a_chain_may_leave_out_the_info_that_nobody_wants() -> None:
    sampler = Careless((PAIR, None))
    assert torch.equal(sampler(lambda z: z.sum(dim=1), PAIR), PAIR)
    with pytest.raises(ValueError, match="must return a state of shape .* and an Info"):
        sampler.run(lambda z: z.sum(dim=1), PAIR)
    assert Careless((PAIR, INFO)).run(lambda z: z.sum(dim=1), PAIR)[1] is INFO
