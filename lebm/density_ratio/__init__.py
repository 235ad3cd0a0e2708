"""Log-ratios of two densities, learned from samples of both, without Lightning.

Example:
    >>> import torch
    >>> from lebm.density_ratio import Training, logistic
    >>> from lebm.models import MLPEnergy
    >>> generator = torch.Generator().manual_seed(0)
    >>> p, q = (torch.randn(500, 1, generator=generator) + shift for shift in (1.0, 0.0))
    >>> energy = MLPEnergy(1, [8], output_bias=True)
    >>> log_ratio = logistic(p, q, energy, Training(steps=100, lr=0.05), generator)
    >>> log_ratio(torch.tensor([[-1.0], [2.0]])).sign().tolist()  # the log-ratio is z - 1/2
    [-1.0, 1.0]
"""

from lebm.density_ratio.classifiers import Training, logistic, sequential, telescoping
from lebm.density_ratio.log_ratio import LogRatio, Quality, direct_log_z, staged_log_z

__all__ = [
    "LogRatio",
    "Quality",
    "Training",
    "direct_log_z",
    "logistic",
    "sequential",
    "staged_log_z",
    "telescoping",
]
