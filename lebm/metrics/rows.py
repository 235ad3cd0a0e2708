"""Collection of rows over batches and processes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lebm.errors import UserError
from lebm.samplers.base import finite_rows

__all__ = ["NonFinite", "RowCollector", "finite_rows"]

_NOWHERE = 2**62


class NonFinite(Metric):
    """A count of non-finite rows over all processes, with the index of the first one.

    Such rows must be kept from other metrics, because torchmetrics would return NaN or crash in LAPACK. The
    error is raised at the end of a pass on all processes, so no process waits for another.

    Example:
        >>> import torch
        >>> from lebm.metrics import NonFinite, finite_rows
        >>> nonfinite = NonFinite()
        >>> nonfinite.update(finite_rows(torch.tensor([[0.0], [torch.nan]])), index=torch.tensor([6, 7]))
        >>> [int(value) for value in nonfinite.compute()]  # one row, at index 7
        [1, 7]
    """

    full_state_update = False
    count: Tensor
    first: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("first", torch.tensor(_NOWHERE), dist_reduce_fx="min")

    def update(self, finite: Tensor, index: Tensor) -> None:
        """Add the result of :func:`finite_rows` and the index of each row, both ``(B,)``."""
        bad = index[~finite]
        self.count = self.count + bad.numel()
        self.first = torch.minimum(self.first, bad.min().to(self.first)) if bad.numel() else self.first

    def compute(self) -> tuple[Tensor, Tensor]:
        return self.count, self.first

    def refuse(self, what: str, advice: str) -> None:
        """Raise an error if a row was non-finite. Every process must call this method.

        Args:
            what: name of the rows, the start of the message.
            advice: end of the message.

        Raises:
            UserError: with the number of non-finite rows and the index of the first one.
        """
        count, first = (int(value) for value in self.compute())
        if count:
            found = f"{count} non-finite (NaN or infinite), the first at index {first}"
            raise UserError(f"{what}: {found}; {advice}")


class RowCollector(Metric):
    """A collector of named columns of rows from all processes, sorted by the column ``index``.

    Every process must update it, with zero rows if it has none, and all must call :meth:`table`.

    Args:
        columns: names of the columns; ``"index"``, ``(B,)`` of ``long``, is always a column.

    Example:
        >>> import torch
        >>> from lebm.metrics import RowCollector
        >>> rows = RowCollector(["score"])
        >>> rows.update(index=torch.tensor([1, 0]), score=torch.tensor([0.5, 0.25]))
        >>> rows.table()
        {'index': tensor([0, 1]), 'score': tensor([0.2500, 0.5000])}
    """

    full_state_update = False

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = ["index", *(name for name in columns if name != "index")]
        for name in self.columns:
            self.add_state(f"rows_{name}", [], dist_reduce_fx="cat")

    def update(self, **rows: Tensor) -> None:
        """Add one tensor ``(B, *event)`` per column.

        Raises:
            UserError: if a column is missing.
        """
        for name in self.columns:
            getattr(self, f"rows_{name}").append(rows[name].detach())

    def compute(self) -> dict[str, Tensor]:
        return {name: dim_zero_cat(getattr(self, f"rows_{name}")) for name in self.columns}

    def table(self) -> dict[str, Tensor]:
        """Return all rows, one tensor ``(N, *event)`` per column.

        Raises:
            UserError: if a row was added twice, as by Lightning's sampler, which pads the data of several
                processes.
        """
        events = {name: getattr(self, f"rows_{name}")[0].shape[1:] for name in self.columns}
        # torchmetrics squeezes a single number
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
