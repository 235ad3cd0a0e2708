from __future__ import annotations

import pytest
import torch

from lebm.samplers.noise import Noise, normal, uniform


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize("batch", [8, 64, 104])
@pytest.mark.parametrize("steps", [None, 3])
def test_a_process_draws_its_rows_of_what_one_would_draw(
    processes: int, batch: int, steps: int | None, device: torch.device
) -> None:
    alone = Noise.shards("x", 1, shards=8)
    shares = [Noise.shards("x", 1, shards=8, rank=rank, world_size=processes) for rank in range(processes)]
    for kind in ("normal", "uniform", "normal"):
        chain = {"steps": steps} if kind == "normal" and steps else {}
        whole = getattr(alone, kind)((batch, 3), device=device, **chain)
        parts = [getattr(share, kind)((batch // processes, 3), device=device, **chain) for share in shares]
        assert torch.equal(torch.cat(parts, dim=1 if chain else 0), whole)


def test_uneven_shards_agree_as_long_as_the_processes_divide_the_batch() -> None:
    whole = Noise.shards("x", shards=8).normal((100, 2))
    parts = [Noise.shards("x", shards=8, rank=rank, world_size=4).normal((25, 2)) for rank in range(4)]
    assert whole.shape == (100, 2)
    assert torch.equal(torch.cat(parts), whole)


def test_a_sample_draws_the_same_wherever_it_is(device: torch.device) -> None:
    together = Noise.samples(0, "encode", index=[5, 2, 9]).normal((3, 4), steps=2)
    alone = Noise.samples(0, "encode", index=torch.tensor([2])).normal((1, 4), steps=2, device=device)
    assert alone.device.type == device.type
    assert torch.equal(together[:, 1:2], alone.cpu())


def test_streams_are_sequential_keyed_and_repeatable() -> None:
    noise = Noise([("a", 1)])
    first, second = noise.normal((4, 2)), noise.normal((4, 2))
    assert not torch.equal(first, second)
    again = Noise([("a", 1)])
    assert torch.equal(again.normal((4, 2)), first)
    assert torch.equal(again.normal((4, 2)), second)
    assert not torch.equal(Noise([("a", 2)]).normal((4, 2)), first)
    assert not torch.equal(Noise([("a", "1")]).normal((4, 2)), first)


def test_streams_do_not_repeat_each_other_and_have_the_right_moments(device: torch.device) -> None:
    noise = Noise.shards(3, "moments", shards=8)
    draws = noise.normal((8000, 5), device=device)
    assert len({draws[1000 * shard, 0].item() for shard in range(8)}) == 8
    assert draws.mean().abs() < 4 / draws.numel() ** 0.5
    assert (draws.var() - 1).abs() < 4 * (2 / draws.numel()) ** 0.5
    chances = noise.uniform((8000, 5), device=device)
    assert chances.min() >= 0
    assert chances.max() < 1
    assert (chances.mean() - 0.5).abs() < 4 / (12 * chances.numel()) ** 0.5
    correlation = torch.corrcoef(draws[:, 0].reshape(8, 1000))
    assert (correlation.cpu() - torch.eye(8)).abs().max() < 5 / 1000**0.5


def test_generators_and_the_default_are_torchs_own() -> None:
    place = {"dtype": torch.float64, "device": "cpu"}
    expected = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(normal(torch.Generator().manual_seed(1), (3, 4), steps=2, **place), expected)
    torch.manual_seed(1)
    expected = torch.rand(3, 4, dtype=torch.float64)
    torch.manual_seed(1)
    assert torch.equal(uniform(None, (3, 4), **place), expected)


def test_the_number_of_processes_divides_the_shards() -> None:
    with pytest.raises(ValueError, match=r"number of processes \(3\) must divide"):
        Noise.shards("x", shards=8, world_size=3)


def test_noise_without_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stream"):
        Noise([])
