"""The learning methods, each a LightningModule with one scalar loss, and what only they need."""

from lebm.estimators.base import LatentEstimator
from lebm.estimators.dual_mcmc import DualMCMCTeaching
from lebm.estimators.fit_base import FitBase
from lebm.estimators.joint_hierarchical import JointHierarchicalPrior
from lebm.estimators.latent_mle import LatentMLE
from lebm.estimators.multistage_nce import MultiStageNCE
from lebm.estimators.ncp import noise_contrastive_prior
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_chains import PriorChains
from lebm.estimators.prior_model import LatentPriorModel
from lebm.estimators.revised_model import RevisedModel
from lebm.estimators.stages import AdaptiveStages, FixedStages, StageRule
from lebm.estimators.training import OneLossModule

__all__ = [
    "AdamGroups",
    "AdaptiveStages",
    "DualMCMCTeaching",
    "FitBase",
    "FixedStages",
    "JointHierarchicalPrior",
    "LatentEstimator",
    "LatentMLE",
    "LatentPriorModel",
    "MultiStageNCE",
    "OneLossModule",
    "PriorChains",
    "RevisedModel",
    "StageRule",
    "noise_contrastive_prior",
]
