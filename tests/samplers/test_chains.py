from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lebm.samplers import MALA, Langevin, Noise, PersistentChains, gather_pools
from tests.distributed import run_processes


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().flatten(1).sum(dim=1)


def noise(call: int, rank: int = 0, world_size: int = 1) -> Noise:
    return Noise.shards(0, "pool", call, shards=4, rank=rank, world_size=world_size)


def starts(call: int, rank: int = 0, world_size: int = 1) -> Tensor:
    return noise(100 + call, rank, world_size).normal((8 // world_size, 3))


def pool(**settings: object) -> PersistentChains:
    return PersistentChains(Langevin(3, 0.3), **settings)  # type: ignore[arg-type]


def test_chains_go_on_where_they_ended() -> None:
    chains, kernel = pool(), Langevin(3, 0.3)
    first = chains(standard, starts(0), noise(0))
    second, info = chains.run(standard, starts(1), noise(1))
    source = noise(1)
    source.uniform((8,))  # the restart draw
    assert torch.equal(second, kernel(standard, first, source))
    assert info.extra["restarted"].sum() == 0


def test_slots_take_turns() -> None:
    chains = pool(slots=2)
    ends = [chains.run(standard, starts(call), noise(call)) for call in range(4)]
    assert [int(info.extra["restarted"].sum()) for _, info in ends] == [8, 8, 0, 0]
    assert torch.equal(chains.state_dict()["pool"], torch.stack([ends[2][0], ends[3][0]]))


def test_restart_rate() -> None:
    chains = PersistentChains(Langevin(0, 0.3), restart_rate=0.25)
    chains(standard, torch.zeros(4000, 1))
    end, info = chains.run(standard, torch.ones(4000, 1), torch.Generator().manual_seed(0))
    assert torch.equal(end[:, 0], info.extra["restarted"])
    assert abs(end.mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_rows_that_blew_up_are_restarted() -> None:
    chains = PersistentChains(Langevin(1, 0.1))
    factor = torch.ones(8)
    factor[2] = torch.nan
    chains(lambda z: factor * standard(z), starts(0), noise(0))
    end, info = chains.run(standard, starts(1), noise(1))
    assert info.extra["restarted"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert torch.isfinite(end).all()


def test_eval_mode_leaves_the_pool_alone() -> None:
    chains = pool()
    chains(standard, starts(0), noise(0))
    before = chains.state_dict()
    chains.eval()
    end = chains(standard, torch.zeros(50, 3), noise(1))
    assert torch.equal(end, Langevin(3, 0.3)(standard, torch.zeros(50, 3), noise(1)))
    assert torch.equal(chains.state_dict()["pool"], before["pool"])
    assert chains.state_dict()["calls"] == before["calls"]


def test_a_smaller_last_batch_uses_the_first_rows_and_a_larger_one_is_refused() -> None:
    chains = pool()
    chains(standard, starts(0), noise(0))
    before = chains.state_dict()["pool"]
    end = chains(standard, starts(1)[:5], noise(1))
    after = chains.state_dict()["pool"]
    assert torch.equal(after[0, :5], end)
    assert torch.equal(after[0, 5:], before[0, 5:])
    with pytest.raises(ValueError, match=r"call \.eval\(\) to sample without the pool"):
        chains(standard, torch.zeros(9, 3), noise(2))
    with pytest.raises(ValueError, match="the pool holds a batch of"):
        chains(standard, torch.zeros(8, 4), noise(2))


def test_slots_that_move_together_are_one_run_of_the_kernel() -> None:
    chains, kernel = pool(slots=4, together=2), Langevin(3, 0.3)
    ends = [chains.run(standard, starts(call), noise(call)) for call in range(6)]
    state = starts(0).repeat_interleave(2, dim=0)  # both slots start at the rows of the first call
    for call in (0, 4):
        source = noise(call)
        source.uniform((16,))  # the restart draw
        state, info = kernel.run(standard, state, source)
        for turn in range(2):
            end, measured = ends[call + turn]
            assert torch.equal(end, state[turn::2])
            assert torch.equal(measured.displacement, info.displacement[turn::2])
            assert measured.extra["restarted"].sum() == (8 if call == 0 else 0)


def test_chains_that_move_together_reach_the_target() -> None:
    chains = PersistentChains(MALA(3, 0.8), slots=4, together=4)
    source = torch.Generator().manual_seed(0)
    for _ in range(200):
        chains(standard, torch.full((500, 1), 3.0), source)
    z = chains.state_dict()["pool"].flatten()
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert abs(z.var() - 1) < 4 * (2 / len(z)) ** 0.5


def test_slots_that_move_together_move_whole_in_a_smaller_last_batch() -> None:
    chains = pool(slots=2, together=2)
    for call in range(2):
        chains(standard, starts(call), noise(call))
    before = chains.state_dict()["pool"]
    end, info = chains.run(standard, starts(2)[:5], noise(2))
    after = chains.state_dict()["pool"]
    assert len(end) == len(info.displacement) == 5
    assert (after != before).all()
    assert torch.equal(chains(standard, starts(3), noise(3)), after[1])


def test_what_a_call_returned_does_not_change_later() -> None:
    chains = pool()
    end = chains(standard, starts(0), noise(0))
    kept = end.clone()
    chains(standard, starts(1), noise(1))
    assert torch.equal(end, kept)


def test_chains_resumed_between_two_moves_are_measured_where_they_stand() -> None:
    straight, resumed = pool(slots=2, together=2), pool(slots=2, together=2)
    straight(standard, starts(0), noise(0))
    resumed.load_state_dict(straight.state_dict())
    end, info = resumed.run(standard, starts(1), noise(1))
    assert torch.equal(end, straight(standard, starts(1), noise(1)))
    assert info.displacement.sum() == 0
    torch.testing.assert_close(info.gradient_norm, end.norm(dim=1))


@pytest.mark.parametrize("together", [1, 2])
def test_resuming_continues_bit_for_bit(together: int) -> None:
    straight = pool(slots=2, restart_rate=0.3, together=together)
    for call in range(3):
        straight(standard, starts(call), noise(call))
    resumed = nn.ModuleDict({"chains": pool(slots=2, restart_rate=0.3, together=together)})
    resumed.load_state_dict(nn.ModuleDict({"chains": straight}).state_dict())
    for call in range(3, 7):
        assert torch.equal(
            straight(standard, starts(call), noise(call)),
            resumed["chains"](standard, starts(call), noise(call)),
        )


def test_fresh_pools_save_and_load_too() -> None:
    chains = pool()
    chains.load_state_dict(pool().state_dict())
    assert torch.isfinite(chains(standard, starts(0), noise(0))).all()


def test_loading_refuses_another_number_of_slots_and_reports_a_missing_pool() -> None:
    chains = pool(slots=2)
    chains(standard, starts(0), noise(0))
    with pytest.raises(RuntimeError, match="holds 2 slots but this sampler has 1"):
        pool().load_state_dict(chains.state_dict())
    with pytest.raises(RuntimeError, match="Missing key.*pool"):
        pool().load_state_dict(chains.kernel.state_dict(prefix="kernel."))


def test_data_parallel_wrappers_find_no_buffer_to_broadcast() -> None:
    chains = pool()
    chains(standard, starts(0), noise(0))
    assert not list(chains.buffers())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slots": 0}, "slots must be"),
        ({"restart_rate": 1.5}, "restart_rate must be"),
        ({"slots": 4, "together": 0}, "together must be"),
        ({"slots": 4, "together": 3}, "divide the 4 slots, not 3"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(**arguments)


def worker(file: Path, together: int) -> dict[str, Any]:
    """Two calls, gather, save, load what one process saved, two more calls."""
    rank = torch.distributed.get_rank()
    chains = pool(slots=2, restart_rate=0.3, together=together)
    for call in range(2):
        chains(standard, starts(call, rank, 2), noise(call, rank, 2))
    try:
        chains.state_dict()
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    gather_pools(chains)
    gathered = chains.state_dict()
    resumed = pool(slots=2, restart_rate=0.3, together=together)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    ends = torch.stack(
        [resumed(standard, starts(call, rank, 2), noise(call, rank, 2)) for call in range(2, 5)]
    )
    return {"refused": refused, "gathered": gathered, "ends": ends}


@pytest.mark.parametrize("together", [1, 2])
def test_two_processes_hold_one_global_pool(tmp_path: Path, together: int) -> None:
    alone = pool(slots=2, restart_rate=0.3, together=together)
    for call in range(2):
        alone(standard, starts(call), noise(call))
    single = alone.state_dict()
    torch.save(single, tmp_path / "single.pt")
    expected = torch.stack([alone(standard, starts(call), noise(call)) for call in range(2, 5)])
    results = run_processes(worker, tmp_path / "single.pt", together)
    for result in results:
        assert "gather_pools(module) on all of them" in result["refused"]
        torch.testing.assert_close(result["gathered"]["pool"], single["pool"], atol=1e-6, rtol=0)
        assert result["gathered"]["calls"] == single["calls"]
    torch.testing.assert_close(
        torch.cat([result["ends"] for result in results], dim=1), expected, atol=1e-6, rtol=0
    )


def test_fresh_chains_have_a_length_of_their_own() -> None:
    chains = PersistentChains(Langevin(steps=2, step_size=0.1, noise_scale=0.0), fresh_steps=7)
    climb = lambda z: z.sum(dim=1)  # noqa: E731
    assert chains(climb, torch.zeros(1, 1)).item() == pytest.approx(2 * 0.005)
    assert chains.steps == 2
    assert chains.eval().steps == 7
    assert chains(climb, torch.zeros(1, 1)).item() == pytest.approx(7 * 0.005)
    assert chains(climb, torch.zeros(1, 1), steps=1).item() == pytest.approx(0.005)
    with pytest.raises(ValueError, match="fresh_steps must be at least 0"):
        PersistentChains(Langevin(1, 0.1), fresh_steps=-1)


def test_rows_of_the_pool_are_drawn_evenly() -> None:
    chains = PersistentChains(Langevin(steps=1, step_size=0.1), slots=3)
    with pytest.raises(ValueError, match="the pool is empty"):
        chains.pooled(4)
    source = torch.Generator().manual_seed(0)
    for _ in range(2):  # one slot is never used
        chains(lambda z: -0.5 * z.square().sum(dim=1), torch.zeros(5, 2), source)
    rows = chains.state_dict()["pool"][:2].flatten(0, 1)
    drawn = chains.pooled(20_000, torch.Generator().manual_seed(1))
    counts = torch.stack([(drawn == row).all(dim=1).sum() for row in rows])
    assert int(counts.sum()) == 20_000
    assert ((counts - 2_000).abs() < 5 * (20_000 * 0.1 * 0.9) ** 0.5).all()
