"""Log-ratios of two densities, learned from samples of both. Nothing here needs Lightning.

Example:
    >>> import torch
    >>> from lebm.density_ratio import ulsif
    >>> generator = torch.Generator().manual_seed(0)
    >>> p, q = (torch.randn(500, 1, generator=generator) + shift for shift in (1.0, 0.0))
    >>> log_ratio = ulsif(p, q, generator=generator)
    >>> log_ratio(torch.tensor([[-1.0], [0.5], [2.0]])).sign()  # the log-ratio is z - 1/2
    tensor([-1., -1.,  1.])
"""

from lebm.density_ratio.classifiers import Training, logistic, sequential, telescoping
from lebm.density_ratio.log_ratio import LogRatio, Quality
from lebm.density_ratio.log_z import direct_log_z, staged_log_z
from lebm.density_ratio.ulsif import ulsif

__all__ = [
    "LogRatio",
    "Quality",
    "Training",
    "direct_log_z",
    "logistic",
    "sequential",
    "staged_log_z",
    "telescoping",
    "ulsif",
]
