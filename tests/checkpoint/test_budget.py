"""What a description may cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lebm.checkpoint.budget import Budget, check_limits
from lebm.errors import UserError


def test_all_new_tensors_count_together() -> None:
    with torch.device("meta"), Budget(numbers=1000, calls=100):
        nn.Linear(20, 20)  # initialising it makes no new tensor
        torch.zeros(500)
        with pytest.raises(UserError, match="much larger than the weights"):
            torch.zeros(500)


def test_one_result_may_not_be_larger_than_all() -> None:
    with torch.device("meta"), Budget(numbers=1000, calls=100), pytest.raises(UserError, match="much larger"):
        torch.zeros(30, 1).expand(30, 1000)


def test_calls_are_counted() -> None:
    with torch.device("meta"), Budget(numbers=1000, calls=2):
        torch.zeros(1)
        torch.zeros(1)
        with pytest.raises(UserError, match="much larger"):
            torch.zeros(1)


def test_a_device_that_a_constructor_names_gets_no_memory() -> None:
    with torch.device("meta"), Budget(numbers=10**16, calls=100):
        assert torch.empty(10**15, device="cpu").is_meta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 100_001}, "steps 100001: more than 100000"),
        ({"nested": {"init_args": {"sizes": [1, [2, 10**6]]}}}, "sizes 1000000: more than"),
        ({"steps": -(10**6)}, "steps -1000000"),
        ({"candidates": 10_001}, "candidates 10001: more than 10000"),
        ({"seed": 2**65}, "seed"),
        ({"out_shape": [1, 513, 513]}, "out_shape .* needs more weights"),
        ({"compile": True}, "may not start a compiler"),
    ],
)
def test_a_limit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_limits({"class_path": "a.B", "init_args": arguments}, weights=100)


def test_what_is_within_the_limits() -> None:
    check_limits({"out_shape": [1, 513, 513], "seed": 2**64, "steps": 100_000, "compile": False}, 513**2)
    check_limits({"fit_base": {"init_args": {"at": [150_000, 300_000], "rows": 10**6}}}, 100)
