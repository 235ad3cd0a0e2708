"""Networks as a chain sees them: fixed functions that change no buffer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

__all__ = ["frozen"]


@contextmanager
def frozen(*networks: nn.Module, batch_statistics: bool = False) -> Iterator[None]:
    """Evaluation mode for a chain, every module put back as it was: no forward inside changes a buffer.

    Spectral norm stays at its current vector, and normalised weights are computed once instead of at every
    step of the chain. BatchNorm uses its running statistics; or, with ``batch_statistics``, those of the
    batch it sees, without remembering them. The latter makes the chains of a batch depend on each other, as
    in released code that never leaves training mode.

    Args:
        networks: what the chain's log-density calls.
        batch_statistics: for BatchNorm layers.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    remembering = [
        (module, module.track_running_stats) for module, _ in modes if isinstance(module, _BatchNorm)
    ]
    for network in networks:
        network.eval()
    if batch_statistics:
        for norm, _ in remembering:
            norm.training, norm.track_running_stats = True, False
    try:
        with parametrize.cached():
            with (
                torch.inference_mode(False),
                torch.no_grad(),
            ):  # what is cached holds no graph, and gradients may pass it
                for module, _ in modes:
                    if parametrize.is_parametrized(module):
                        for name in module.parametrizations:  # type: ignore[union-attr]
                            getattr(module, name)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, remembers in remembering:
            norm.track_running_stats = remembers
