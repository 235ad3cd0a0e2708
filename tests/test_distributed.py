"""The harness itself must not hide failures."""

import time

import pytest
import torch

from tests.distributed import ChildError, run_processes


def _sum_of_ranks(offset: int) -> int:
    total = torch.tensor(torch.distributed.get_rank() + offset)
    torch.distributed.all_reduce(total)
    return int(total) * 10 + torch.distributed.get_rank()


def _one_fails() -> None:
    if torch.distributed.get_rank() == 1:
        raise RuntimeError("told to fail")
    torch.distributed.barrier()  # waits for the one that failed


def _sleep() -> None:
    time.sleep(60)


def test_results_come_in_rank_order() -> None:
    assert run_processes(_sum_of_ranks, 5) == [110, 111]


def test_a_failure_ends_the_others_and_shows_its_traceback() -> None:
    with pytest.raises(ChildError, match="told to fail"):
        run_processes(_one_fails)


def test_time_out_kills() -> None:
    started = time.monotonic()
    with pytest.raises(ChildError, match=r"processes \[0\] were still running after 3 s"):
        run_processes(_sleep, world_size=1, timeout=3)
    assert time.monotonic() - started < 30
