"""Networks as a chain needs them: fixed functions whose buffers do not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize


@contextmanager
def frozen(*networks: nn.Module, batch_statistics: bool = False) -> Iterator[None]:
    """Put networks into evaluation mode for a chain, and restore the mode of every module afterwards.

    No forward pass inside the context changes a buffer. Spectral norm keeps its current vector, and
    normalised weights are computed once instead of at every step of the chain. BatchNorm uses its running
    statistics. With ``batch_statistics`` it uses the statistics of the current batch and does not store them.
    The chains of a batch then depend on each other, as in released code that never leaves training mode.

    Args:
        networks: the networks that the log-density of the chain calls.
        batch_statistics: whether BatchNorm layers use the statistics of the batch.

    Example:
        >>> import torch
        >>> from lebm.models import frozen
        >>> net = torch.nn.BatchNorm1d(2)
        >>> with frozen(net):
        ...     _ = net(torch.randn(8, 2))
        ...     net.training
        False
        >>> net.training, net.num_batches_tracked.item()
        (True, 0)
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    tracking = [(module, module.track_running_stats) for module, _ in modes if isinstance(module, _BatchNorm)]
    for network in networks:
        network.eval()
    if batch_statistics:
        for norm, _ in tracking:
            norm.training, norm.track_running_stats = True, False
    try:
        with parametrize.cached():
            # The cached weights hold no graph, and gradients with respect to the state may pass through them.
            with torch.inference_mode(False), torch.no_grad():
                for module, _ in modes:
                    if parametrize.is_parametrized(module):
                        for name in module.parametrizations:  # type: ignore[union-attr]
                            getattr(module, name)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, tracks in tracking:
            norm.track_running_stats = tracks
