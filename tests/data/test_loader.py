"""The order of the data: complete, the same for any number of processes, and exact after resuming from any
step.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from lebm.data.cache import open_images
from lebm.data.loader import BatchLoader, ShardedBatchSampler, coin_flips
from lebm.data.rows import ImageRows
from tests.conftest import MakeParquet, pictures


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def numbered(rows: int) -> ImageRows:
    """Images whose label is their row."""
    return ImageRows([pictures(rows)[:, None]], np.arange(rows), np.arange(rows))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "batch_size"), [(48, 12), (50, 12), (49, 12), (13, 12), (12, 12), (9, 12)])
def test_processes_together_see_what_one_sees(rows: int, batch_size: int, world_size: int) -> None:
    for shuffle, drop_last in ((True, True), (False, False)):
        samplers = [
            ShardedBatchSampler(
                rows,
                batch_size,
                rank=rank,
                world_size=world_size,
                shuffle=shuffle,
                drop_last=drop_last,
                seed=3,
            )
            for rank in range(world_size)
        ]
        for epoch in range(2):
            for sampler in samplers:
                sampler.set_epoch(epoch)
            pieces = [list(sampler) for sampler in samplers]
            assert {len(piece) for piece in pieces} == {len(samplers[0])}
            joined = [flat(piece[batch] for piece in pieces) for batch in range(len(samplers[0]))]
            assert all(
                piece[batch] for piece in pieces for batch in range(len(joined))
            )  # nobody is left without rows
            single = ShardedBatchSampler(rows, batch_size, shuffle=shuffle, drop_last=drop_last, seed=3)
            single.set_epoch(epoch)
            assert flat(joined) == flat(single)
            if drop_last:
                assert joined == list(single)
                assert all(len(batch) == batch_size for batch in joined)
                assert len(set(flat(joined))) == rows // batch_size * batch_size
            else:
                assert flat(joined) == list(range(rows))
                for batch in range(len(joined)):
                    sizes = [len(piece[batch]) for piece in pieces]
                    ends = [(rank + 1) * sum(sizes) // world_size for rank in range(world_size)]
                    assert np.cumsum(sizes).tolist() == ends


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShardedBatchSampler(30, 10, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return flat(sampler)

    torch.manual_seed(0)
    first = order(0, 0)
    torch.manual_seed(1)
    assert order(0, 0) == first
    assert len({tuple(order(seed, epoch)) for seed in range(2) for epoch in range(3)}) == 6
    assert sorted(first) == list(range(30)) != first


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_start_anywhere_and_leave_global_random_state_alone(num_workers: int) -> None:
    position = [0, 0]
    sampler = ShardedBatchSampler(40, 8, shuffle=True, drop_last=True, seed=1)
    loader = BatchLoader(numbered(40), sampler, lambda: (position[0], position[1]), num_workers)
    whole = {}
    for epoch in range(2):
        position[:] = [epoch, 0]
        whole[epoch] = [batch["index"].tolist() for batch in loader]
    assert whole[0] != whole[1]
    assert len(whole[0]) == len(loader) == 5
    state = torch.get_rng_state()
    iterator = iter(loader)
    position[:] = [1, 3]  # after iter(), as Lightning does it
    assert [batch["index"].tolist() for batch in iterator] == whole[1][3:]
    position[:] = [1, 5]
    assert list(loader) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_joined_sources() -> None:
    first, second = pictures(6, seed=1)[:, None], pictures(4, seed=2)[:, None]
    labels = np.arange(10)
    rows = np.array([9, 0, 6, 5, 3])
    split = ImageRows([first, second], labels, rows, held_out=[6])
    everything = np.concatenate([first, second])
    np.testing.assert_array_equal(split.images(), everything[rows])
    batch = split.__getitems__([2, 0, 3])
    np.testing.assert_array_equal(batch["x"], everything[rows[[2, 0, 3]]])
    assert batch["index"].tolist() == [2, 0, 3]
    assert batch["label"].tolist() == [6, 9, 5]
    assert batch["anomaly"].tolist() == [True, False, False]
    assert split.anomaly is not None
    assert split.anomaly.tolist() == [False, False, True, False, False]
    assert split[3]["label"] == 5
    assert split[3]["x"].shape == (1, 8, 8)


def test_a_pickled_split_holds_no_images(make_parquet: MakeParquet) -> None:
    cached = open_images(str(make_parquet(train=200)), "train")
    split = ImageRows([cached.images], cached.labels, np.arange(200))
    content = pickle.dumps(split)
    assert len(content) < cached.images.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(content).images(), cached.images)


def test_coin_flips_are_fair_and_keyed() -> None:
    index = torch.arange(20_000)
    flips = torch.stack([coin_flips(seed, epoch, index) for seed in range(2) for epoch in range(4)]).double()
    four_errors = 4 * 0.5 / len(index) ** 0.5
    assert (flips.mean(1) - 0.5).abs().max() < four_errors
    agreement = torch.tensor([(flips[i] == flips[j]).double().mean() for i in range(8) for j in range(i)])
    assert (agreement - 0.5).abs().max() < four_errors  # independent between epochs and seeds
    neighbours = (flips[:, 1:] == flips[:, :-1]).double().mean(1)
    assert (neighbours - 0.5).abs().max() < four_errors
    assert torch.equal(coin_flips(0, 1, index[[7, 3]]), coin_flips(0, 1, index)[[7, 3]])


def test_the_path_of_a_split_is_not_needed_for_arrays(tmp_path: Path) -> None:
    split = pickle.loads(pickle.dumps(numbered(3)))
    np.testing.assert_array_equal(split.images(), pictures(3)[:, None])
