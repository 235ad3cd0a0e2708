"""Log-ratios of two densities, learned from samples of both, without Lightning."""

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
