"""Collecting rows over batches and processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lebm.errors import UserError

__all__ = ["NonFinite", "RowCollector", "finite_rows"]

_NOWHERE = 2**62


def finite_rows(x: Tensor) -> Tensor:
    """Which rows of ``(B, *event)`` hold neither NaN nor infinity: ``(B,)`` of ``bool``."""
    return (
        torch.isfinite(x).reshape(x.shape[0], -1).all(dim=1)
        if x.shape[0]
        else torch.ones(0, dtype=torch.bool, device=x.device)
    )


class NonFinite(Metric):
    """How many rows were non-finite, and which came first, over all processes.

    Metrics never see such rows: torchmetrics answers NaN, or crashes in LAPACK, where a line of text should
    stand. The refusal comes at the end of a pass, on all processes together, so that none is left waiting for
    another."""

    full_state_update = False
    count: Tensor
    first: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("first", torch.tensor(_NOWHERE), dist_reduce_fx="min")

    def update(self, finite: Tensor, index: Tensor) -> None:
        """Take the answer of :func:`finite_rows` and the rows' numbers, both ``(B,)``."""
        bad = index[~finite]
        self.count = self.count + bad.numel()
        self.first = torch.minimum(self.first, bad.min().to(self.first)) if bad.numel() else self.first

    def compute(self) -> tuple[Tensor, Tensor]:
        return self.count, self.first

    def refuse(self, what: str, advice: str) -> None:
        """Raise if any row was non-finite. Every process must call this.

        Raises:
            UserError: naming how many and the first.
        """
        count, first = (int(value) for value in self.compute())
        if count:
            raise UserError(
                f"{what}: {count} non-finite (NaN or infinite), the first at index {first}; {advice}"
            )


class RowCollector(Metric):
    """Keeps named columns of rows and returns those of all processes, sorted by the column ``index``.

    Args:
        columns: their names; ``"index"``, ``(B,)`` of ``long``, is always one of them.

    Every process must update it, with zero rows if it has none, and all must call :meth:`table`.
    """

    full_state_update = False

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = ["index", *(name for name in columns if name != "index")]
        for name in self.columns:
            self.add_state(f"rows_{name}", [], dist_reduce_fx="cat")

    def update(self, **rows: Tensor) -> None:
        """Take one tensor ``(B, *event)`` per column.

        Raises:
            UserError: if a column is missing.
        """
        if missing := [name for name in self.columns if name not in rows]:
            raise UserError(
                f"RowCollector.update needs the columns {', '.join(self.columns)};"
                f" {', '.join(missing)} is missing"
            )
        for name in self.columns:
            getattr(self, f"rows_{name}").append(rows[name].detach())

    def compute(self) -> dict[str, Tensor]:
        return {name: dim_zero_cat(getattr(self, f"rows_{name}")) for name in self.columns}

    def table(self) -> dict[str, Tensor]:
        """All rows, ``(N, *event)`` a column.

        Raises:
            UserError: if a row came twice, as it does when Lightning's own sampler pads the data of several
                processes.
        """
        events = {name: getattr(self, f"rows_{name}")[0].shape[1:] for name in self.columns}
        # torchmetrics squeezes a result of one number
        columns = {name: column.reshape(-1, *events[name]) for name, column in self.compute().items()}
        order = torch.argsort(columns["index"])
        index = columns["index"][order]
        repeated = index[1:][index[1:] == index[:-1]]
        if repeated.numel():
            raise UserError(
                f"sample {int(repeated[0])} was evaluated twice; set trainer.use_distributed_sampler to false"
                " and let the data module cut the batches"
            )
        return {name: column[order] for name, column in columns.items()}
