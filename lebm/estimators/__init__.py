"""The learning methods, each one LightningModule with one scalar loss."""

from lebm.estimators.base import LatentEstimator
from lebm.estimators.dual_mcmc import DualMCMCTeaching
from lebm.estimators.joint_hierarchical import JointHierarchicalPrior
from lebm.estimators.latent_mle import LatentMLE
from lebm.estimators.log_ratio import LogRatio, Quality
from lebm.estimators.multistage_nce import MultiStageNCE
from lebm.estimators.ncp import noise_contrastive_prior
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_model import LatentPriorModel
from lebm.estimators.ratio import Training, logistic, sequential, telescoping
from lebm.estimators.stages import AdaptiveStages, FixedStages, StageRule
from lebm.estimators.ulsif import ulsif

__all__ = [
    "AdamGroups",
    "AdaptiveStages",
    "DualMCMCTeaching",
    "FixedStages",
    "JointHierarchicalPrior",
    "LatentEstimator",
    "LatentMLE",
    "LatentPriorModel",
    "LogRatio",
    "MultiStageNCE",
    "Quality",
    "StageRule",
    "Training",
    "logistic",
    "noise_contrastive_prior",
    "sequential",
    "telescoping",
    "ulsif",
]
