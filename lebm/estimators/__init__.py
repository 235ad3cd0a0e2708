"""The learning methods, each one LightningModule with one scalar loss."""

from lebm.estimators.base import LatentEstimator
from lebm.estimators.latent_mle import LatentMLE
from lebm.estimators.optim import AdamGroups

__all__ = ["AdamGroups", "LatentEstimator", "LatentMLE"]
