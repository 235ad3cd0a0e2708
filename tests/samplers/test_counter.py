"""The counter-based numbers: published vectors, distribution, what each number depends on, and one graph."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from lebm.samplers import CounterNoise, counter
from lebm.samplers.counter import philox
from lebm.samplers.noise import keyed_seed
from tests.device.same import close

VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and words of Philox4x32-10, from the known answers that come with Salmon et al. 2011."""


def words(text: str, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(int(word, 16), device=device) for word in text.split())


@pytest.mark.parametrize(("count", "key", "expected"), VECTORS)
def test_the_published_vectors(count: str, key: str, expected: str, device: torch.device) -> None:
    found = philox(words(count, device), words(key, device))  # type: ignore[arg-type]
    assert " ".join(f"{int(word):08x}" for word in found) == expected


def test_the_counter_is_element_step_row_and_stream() -> None:
    """Written out for each number by itself: what a number depends on, which later versions must keep."""
    noise = CounterNoise.shards("x", 3, shards=4, rank=1, world_size=2)  # streams 2 and 3
    noise.uniform((1, 1), steps=5)
    drawn = noise.uniform((6, 7), steps=2)
    seed = keyed_seed("x", 3)
    key = torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32)
    for step, row, element in itertools.product(range(2), range(6), range(7)):
        where = (element % 2, 5 + step, row % 3, 2 + row // 3)  # two blocks of four numbers for seven
        found = philox(tuple(torch.tensor(value) for value in where), key)  # type: ignore[arg-type]
        assert drawn[step, row, element] == (int(found[element // 2]) >> 8) / 2**24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype: torch.dtype, device: torch.device) -> None:
    """Moments within four standard errors, and the Kolmogorov-Smirnov distance below its 0.1 % quantile."""
    noise = CounterNoise.shards(3, "distribution")
    laws: dict[str, Callable[[Tensor], Tensor]] = {"normal": torch.special.ndtr, "uniform": lambda x: x}
    for kind, law in laws.items():
        draws = getattr(noise, kind)((2000, 37), steps=3, dtype=dtype, device=device).flatten()
        count = draws.numel()
        assert draws.dtype == dtype
        chances = law(draws.double().cpu()).sort().values
        grid = torch.arange(count + 1, dtype=torch.float64) / count
        distance = torch.maximum((chances - grid[:-1]).abs().max(), (grid[1:] - chances).abs().max())
        assert distance < 1.95 / math.sqrt(count)
        for power, mean, variance in ((1, 1 / 2, 1 / 12), (2, 1 / 3, 4 / 45), (4, 1 / 5, 16 / 225)):
            error = (chances**power).mean() - mean
            assert error.abs() < 4 * math.sqrt(variance / count)
        if kind == "normal":
            assert (draws.double().pow(4).mean() - 3).abs() < 4 * math.sqrt(96 / count)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    noise = CounterNoise.shards(4, "half")
    chances = noise.uniform((2000, 100), dtype=dtype).double()
    assert chances.min() == 0
    assert chances.max() < 1
    step = 2.0 ** -{torch.float16: 11, torch.bfloat16: 8}[dtype]
    assert (chances.mean() - (1 - step) / 2).abs() < 4 / (12 * chances.numel()) ** 0.5
    draws = noise.normal((2000, 100), dtype=dtype)
    assert draws.dtype == dtype
    assert (draws.double().var() - 1).abs() < 4 * (2 / draws.numel()) ** 0.5 + 2e-3  # half of it is rounding


def test_the_tails_are_those_of_a_normal() -> None:
    """Three million draws, half of which are the sines: counts beyond 3 and 4 within four standard errors."""
    draws = CounterNoise.shards(5, "tails").normal((8, 375_000)).abs()
    for bound in (3.0, 4.0):
        expected = draws.numel() * math.erfc(bound / math.sqrt(2))
        assert abs(int((draws > bound).sum()) - expected) < 4 * math.sqrt(expected)


def test_rows_steps_elements_streams_purposes_and_draws_are_uncorrelated() -> None:
    whole = CounterNoise.shards(6, "a", shards=4).normal((40, 50), steps=50)
    other = CounterNoise.shards(6, "b", shards=4).normal((40, 50), steps=50)
    by = {
        "rows": whole.transpose(0, 1).flatten(1)[:10],
        "streams": torch.stack([part.flatten() for part in whole.split(10, dim=1)]),
        "steps": whole.flatten(1)[:10],
        "elements": whole.permute(2, 0, 1).flatten(1),
        "purposes": torch.stack([whole.flatten(), other.flatten()]),
        "squares": whole.square().permute(2, 0, 1).flatten(1),  # a cosine and its sine share their radius
    }
    for name, groups in by.items():
        far = (torch.corrcoef(groups) - torch.eye(len(groups))).abs().max()
        assert far < 5 / groups.shape[1] ** 0.5, name
    assert len(whole.unique()) > 0.99 * whole.numel()


def test_a_draw_of_many_steps_is_many_draws() -> None:
    """So the length of a block of a chain does not matter."""
    noise = CounterNoise.shards("x", shards=2)
    one_by_one = torch.stack([noise.normal((6, 5)) for _ in range(4)])
    assert torch.equal(CounterNoise.shards("x", shards=2).normal((6, 5), steps=4), one_by_one)
    assert not torch.equal(noise.normal((6, 5)), one_by_one[0])


@pytest.mark.parametrize("cut", [1, 3, 17, 100])
def test_a_row_does_not_depend_on_its_batch(cut: int, device: torch.device) -> None:
    """Bit for bit, whatever the batch, its order and the number of candidates per row."""
    index = torch.arange(130, device=device) * 977
    whole = CounterNoise.samples("x", index=index).normal((130, 33), steps=3, device=device)
    parts = [
        CounterNoise.samples("x", index=part).normal((len(part), 33), steps=3, device=device)
        for part in index.split(cut)
    ]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    order = torch.arange(129, -1, -1, device=device)
    turned = CounterNoise.samples("x", index=index[order]).normal((130, 33), steps=3, device=device)
    assert torch.equal(turned, whole[:, order])
    wide = CounterNoise.samples("x", index=index).normal((260, 33), device=device)
    alone = CounterNoise.samples("x", index=index[7:8]).normal((2, 33), device=device)
    assert torch.equal(wide[14:16], alone)


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 1), (5, 2, 3, 4), (4, 0)])
def test_shapes(shape: tuple[int, ...]) -> None:
    noise = CounterNoise.shards("x", shards=8)  # more streams than rows
    assert noise.normal(shape).shape == shape
    assert noise.uniform(shape, steps=2).shape == (2, *shape)


def test_no_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one stream"):
        CounterNoise.samples("x", index=[])


def draw_all(sizes: list[tuple[int, int, int]]) -> list[Tensor]:
    """Draws of both kinds by fresh objects, in the modes of a training and of an evaluation."""
    drawn = []
    for number, (steps, rows, dim) in enumerate(sizes):
        with torch.inference_mode(bool(number % 2)), torch.autocast("cpu", enabled=number % 3 == 0):
            noise = CounterNoise.shards(number, "x")
            drawn += [noise.normal((rows, dim), steps=steps), noise.uniform((rows, dim), steps=steps)]
            drawn += [noise.normal((rows, dim), steps=steps)]
    return drawn


def compiled_for_the_cpu(patch: pytest.MonkeyPatch, **settings: Any) -> None:
    patch.setattr(counter, "FUSED", ("cpu",))
    patch.setattr(torch, "compile", functools.partial(torch.compile, **settings))
    torch._dynamo.reset()
    counter._fused.cache_clear()
    counters.clear()


SIZES = [(10, 64, 100), (10, 40, 12), (4, 64, 100), (10, 500, 32), (3, 8, 784)]


def test_a_compiled_draw_has_one_graph_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for normals and one for uniforms, in every mode; numbers as without compilation."""
    expected = draw_all(SIZES)
    compiled_for_the_cpu(monkeypatch, backend="eager")
    try:
        drawn = draw_all(SIZES)
        assert counters["stats"]["unique_graphs"] == 2
        assert not counters["graph_break"]
    finally:
        torch._dynamo.reset()
        counter._fused.cache_clear()
    for found, want in zip(drawn, expected, strict=True):
        assert torch.equal(found, want)


@pytest.mark.slow
def test_a_compiled_draw_is_two_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.metrics as metrics

    expected = draw_all(SIZES)
    compiled_for_the_cpu(monkeypatch)
    metrics.reset()
    try:
        drawn = draw_all(SIZES)
        assert metrics.generated_kernel_count == 2 * 2  # of normals and of uniforms
    finally:
        torch._dynamo.reset()
        counter._fused.cache_clear()
    for found, want in zip(drawn, expected, strict=True):
        close(found, want.double())
