"""Networks as fixed functions, whose buffers do not change in a chain."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize


@contextmanager
def frozen(*networks: nn.Module, batch_statistics: bool = False) -> Iterator[None]:
    """Put networks into evaluation mode for a chain, and restore the mode of every module afterwards.

    No forward pass inside the context changes a buffer: spectral norm keeps its current vector, its weights
    are computed once for all steps of the chain, and BatchNorm uses its running statistics.

    Args:
        networks: networks that the log-density of the chain calls.
        batch_statistics: whether BatchNorm uses the statistics of the batch, without storing them. The chains
            of a batch then depend on each other, as in released code that never leaves training mode.

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
