"""Strategies that cannot train a method with chains."""

from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lebm.errors import UserError
from lebm.lightning_private import syncs_layers

_SHARDED = ("fsdp", "modelparallel", "deepspeed")
"""Names of strategies that split one network over several processes, and of their classes."""


def refusal(strategy: object) -> str | None:
    """Return the line that rejects a strategy; ``None`` for a supported strategy.

    A chain takes gradients inside the network many times per step, which a split network does not allow.

    Args:
        strategy: the name that ``--trainer.strategy`` takes, the path of a class, or a strategy.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if not any(kind in name.lower().replace("_", "") for kind in _SHARDED):
        return None
    return (
        f"trainer.strategy {name}: networks whose chains need their gradients cannot be spread over"
        " processes; use --trainer.strategy ddp"
    )


def check_strategy(model: nn.Module, strategy: Strategy) -> None:
    """Reject split networks, and BatchNorm whose statistics are exchanged between processes."""
    line = refusal(strategy)
    if line is not None:
        raise UserError(line)
    if syncs_layers(strategy) and any(isinstance(part, _BatchNorm) for part in model.modules()):
        raise UserError(
            "trainer.sync_batchnorm true: the steps of a chain would exchange statistics between processes;"
            " use --trainer.sync_batchnorm false, or choose norm: group in the networks"
        )
