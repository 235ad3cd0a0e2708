"""Learning methods, each a LightningModule with one scalar loss, and their settings."""

from lebm.estimators.dual_mcmc import DualMCMCTeaching
from lebm.estimators.fit_base import FitBase
from lebm.estimators.joint_hierarchical import JointHierarchicalPrior
from lebm.estimators.latent_mle import LatentMLE
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.multistage_nce import MultiStageNCE
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_model import PriorModel
from lebm.estimators.stages import AdaptiveStages, FixedStages, StageRule

__all__ = [
    "AdamGroups",
    "AdaptiveStages",
    "DualMCMCTeaching",
    "FitBase",
    "FixedStages",
    "JointHierarchicalPrior",
    "LatentMLE",
    "LatentModel",
    "MultiStageNCE",
    "PriorModel",
    "StageRule",
]
