"""What a description may cost: one total of numbers for building its model, and limits for running it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lebm.errors import UserError

__all__ = ["LARGER", "Budget", "check_limits"]

LARGER = "the model it describes is much larger than the weights it holds"
_LARGEST = 100_000
_FREE = ("seed", "at", "rows")
"""Arguments whose size costs nothing when a model is used; each is below 2**64."""
_LENGTHS = {"candidates": 10_000, "max_length": 10_000}
_OBSERVATION = 2**18
_SHAPES = ("out_shape", "in_shape", "shape")


class Budget(TorchFunctionMode):
    """Limits the numbers in all tensors that are made together, and the number of torch's calls.

    Constructors that ask for more belong to no model. Tensors are made without memory, also those for which a
    constructor names a device: for use inside ``torch.device("meta")``.

    Args:
        numbers: how many numbers all new tensors may have.
        calls: how many calls of torch there may be.
    """

    def __init__(self, numbers: int, calls: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.largest = numbers
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        self.calls -= 1
        result = func(*args, **kwargs)
        size = result.numel() if isinstance(result, Tensor) else 0
        if not any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            self.numbers -= size  # a call that takes a tensor mostly fills one that is counted already
        if self.calls < 0 or self.numbers < 0 or size > self.largest:
            raise UserError(LARGER)
        return result


def check_limits(description: Any, weights: int) -> None:
    """Refuse a description that would make its model slow or large when it is used, whatever its weights are.

    Args:
        description: as of :func:`lebm.checkpoint.rebuild.build`.
        weights: the number of weights in the file. An observation may have as many values, or 262,144.

    Raises:
        UserError: naming the argument.
    """
    for name, value in _arguments(description):
        if name in _SHAPES and isinstance(value, list | tuple):
            sizes = [size for size in value if isinstance(size, int)]
            if math.prod(sizes) > max(_OBSERVATION, weights):
                raise UserError(f"{name} {_short(value)}: an observation that large needs more weights")
        if isinstance(value, bool) or not isinstance(value, int):
            if name == "compile" and value is True:
                raise UserError("compile: a model file may not start a compiler")
            continue
        limit = 2**64 if name in _FREE else _LENGTHS.get(name, _LARGEST)
        if abs(value) > limit:
            raise UserError(f"{name} {_short(value)}: more than {limit}")


def _arguments(description: Any) -> Iterator[tuple[str, Any]]:
    """Every value in a description with the name of its argument; the items of a list have that of the
    list.
    """
    waiting: list[tuple[str, Any]] = [("model", description)]
    while waiting:
        name, value = waiting.pop()
        yield name, value
        if isinstance(value, Mapping):
            waiting.extend((str(key), item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((name, item) for item in value)


def _short(value: Any) -> str:
    return str(value)[:40] if not isinstance(value, int) or abs(value) < 10**40 else "of more than 40 digits"
