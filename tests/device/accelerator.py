"""Watches for work that makes the host wait for an accelerator, without an accelerator.

A GPU runs behind the host. The host waits for it as soon as it reads a value: by ``.item()``, by a mask that
selects rows, or by a copy that is not asynchronous. On a CPU nothing of this can be seen. Here the ``meta``
device takes the place of the GPU: it computes shapes and no values, it refuses to be mixed with the CPU, and
a dispatch mode sees every operation on it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lebm

__all__ = ["Traffic", "watched"]

PACKAGE = Path(lebm.__file__).parent
READS = ("_local_scalar_dense", "equal", "is_nonzero", "item")
SELECTS = ("nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "bincount")
ALLOCATES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class Traffic(TorchDispatchMode):
    """Collects what passes between the host and the accelerator.

    Every entry of ``found`` is one word for the kind of event, and the function of lebm where it happened:

    - ``read``: the host reads a value;
    - ``select``: the shape of a result depends on values, so the host reads their number;
    - ``to host``, ``to device``: a copy for which the host waits;
    - ``mix``: tensors of both sides in one operation, which fails on a GPU;
    - ``on host``: a tensor of one dimension or more is made on the host.

    A copy to the device with ``non_blocking`` is no event: from ordinary memory the driver takes the numbers
    at once and the host goes on.

    Args:
        device: type of the accelerator: ``"meta"``, or ``"cuda"`` where there is one.

    Attributes:
        found: the events, with their number.
        kernels: number of operations that compute on the accelerator, by name. Views and allocations are
            none.
        generators: number of random generators that were made.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.found: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[str] = Counter()
        self.generators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        name = "_local_scalar_dense" if func is torch.ops.aten._local_scalar_dense.default else name
        given = _tensors((args, kwargs))
        there = [value for value in given if value.device.type == self.device]
        here = [value for value in given if value.device.type == "cpu"]
        if there and name in READS:
            return self._answer("read", func, args, kwargs)
        if there and (name in SELECTS or (name in ("index", "index_put") and _has_mask(args[1]))):
            return self._answer("select", func, args, kwargs)
        if there and name == "_to_copy" and torch.device(kwargs.get("device") or self.device).type == "cpu":
            return self._answer("to host", func, args, kwargs)
        if name == "copy" and there and here:
            if args[0].device.type == "cpu":
                return self._answer("to host", func, args, kwargs)
            if not (args[2] if len(args) > 2 else kwargs.get("non_blocking")):
                self._note("to device")
            return func(*args, **kwargs)
        if there and any(value.dim() for value in here):
            self._note("mix")
        result = func(*args, **kwargs)
        made = _tensors(result)
        if name == "lift_fresh":  # the numbers of torch.tensor, which are already where they were asked for
            if there:
                self._note("to device")
            elif made[0].dim():
                self._note("on host")
        elif any(value.device.type == self.device for value in made):
            if here and not there and not kwargs.get("non_blocking"):
                self._note("to device")
            if not func.is_view and name not in ALLOCATES and name != "detach":
                self.kernels[name] += 1
        elif not given and any(value.dim() for value in made):
            self._note("on host")
        return result

    def _note(self, kind: str) -> None:
        """Count the event at the innermost line of lebm; the tests' own lines are none of its business."""
        frame = sys._getframe(1)
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(PACKAGE):
                module = file.relative_to(PACKAGE).with_suffix("")
                self.found[kind, f"{'.'.join(module.parts)}.{frame.f_code.co_name}"] += 1
                return
            frame = frame.f_back  # type: ignore[assignment]

    def _answer(self, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """The result, or a stand-in for it where the device has no values."""
        self._note(kind)
        if self.device != "meta":
            return func(*args, **kwargs)
        if kind == "read":
            return torch.ones((), dtype=args[0].dtype).item()
        if kind == "to host":
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.long)
        raise NotImplementedError(f"{func} has no stand-in without values: {dict(self.found)}")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _has_mask(index: Any) -> bool:
    return any(entry.dtype in (torch.bool, torch.uint8) for entry in index if isinstance(entry, Tensor))


@contextmanager
def watched(device: str = "meta") -> Iterator[Traffic]:
    """Watch a block whose tensors are on ``device``.

    For ``meta`` torch has no random generator and no answer about mixed precision. Inside the block a
    generator of that device is an ordinary one that says it is elsewhere, and mixed precision is off.
    """
    traffic = Traffic(device)
    plain, is_enabled = torch.Generator, torch.is_autocast_enabled

    class Counted(plain):  # type: ignore[valid-type, misc]
        def __new__(cls, where: Any = "cpu") -> Counted:
            traffic.generators += 1
            own = super().__new__(cls, "cpu" if torch.device(where).type == "meta" else where)
            own.where = torch.device(where)
            return own

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return self.where

    def enabled(*where: str) -> bool:
        return is_enabled(*where) if where != ("meta",) else False

    with (
        mock.patch.object(torch, "Generator", Counted),
        mock.patch.object(torch, "is_autocast_enabled", enabled),
        traffic,
    ):
        yield traffic
