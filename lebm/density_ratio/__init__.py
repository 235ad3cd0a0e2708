"""Log-ratios of two densities, learned from samples of both; no Trainer."""

from lebm.density_ratio.classifiers import Training, logistic, sequential, telescoping
from lebm.density_ratio.log_ratio import LogRatio, Quality
from lebm.density_ratio.log_z import staged_log_z
from lebm.density_ratio.ulsif import ulsif

__all__ = [
    "LogRatio",
    "Quality",
    "Training",
    "logistic",
    "sequential",
    "staged_log_z",
    "telescoping",
    "ulsif",
]
