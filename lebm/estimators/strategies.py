"""Strategies that cannot train a method with chains."""

from __future__ import annotations

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lebm.errors import UserError
from lebm.lightning_private import syncs_layers

__all__ = ["check_strategy", "refusal"]

_SHARDED = {"fsdp": FSDPStrategy, "model_parallel": ModelParallelStrategy, "deepspeed": DeepSpeedStrategy}
"""Prefixes of the names of strategies that split one network over several processes."""


def refusal(strategy: object) -> str | None:
    """Return the line that rejects a strategy; ``None`` for a supported strategy.

    A chain takes gradients inside the network many times per step, which a split network does not allow.

    Args:
        strategy: the name that ``--trainer.strategy`` takes, the path of a class, or a strategy.
    """
    for name, kind in _SHARDED.items():
        said = isinstance(strategy, str) and (strategy.startswith(name) or strategy.endswith(kind.__name__))
        if said or isinstance(strategy, kind):
            return (
                f"trainer.strategy {strategy if said else name}: networks whose chains need their gradients"
                " cannot be spread over processes; use --trainer.strategy ddp"
            )
    return None


def check_strategy(model: nn.Module, strategy: Strategy) -> None:
    """Reject split networks, and BatchNorm whose statistics are exchanged between processes.

    Raises:
        UserError: with the setting to type instead.
    """
    line = refusal(strategy)
    if line is not None:
        raise UserError(line)
    if syncs_layers(strategy) and any(isinstance(part, _BatchNorm) for part in model.modules()):
        raise UserError(
            "trainer.sync_batchnorm true: the steps of a chain would exchange statistics between processes;"
            " use --trainer.sync_batchnorm false, or choose norm: group in the networks"
        )
