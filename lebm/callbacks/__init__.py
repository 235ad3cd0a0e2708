"""Lightning callbacks, which measure, draw or check a run.

:mod:`lebm.evaluation` computes the values and :mod:`lebm.plots` draws the pictures. Callbacks use only
:class:`~lebm.estimators.LatentModel` and its protocols, except for :class:`StagePicture`.
"""

from lebm.callbacks.anomaly import AnomalyDetection
from lebm.callbacks.base import EvaluationCallback
from lebm.callbacks.divergence import ChainHealth, Divergence, DivergenceError
from lebm.callbacks.frechet import FrechetDistance
from lebm.callbacks.latents import (
    InterpolationGrid,
    LatentPicture,
    LatentTraversal,
    LongChain,
    PosteriorLatents,
    StagePicture,
)
from lebm.callbacks.layers import HierarchicalSamples, LatentAttack, LayerClassification, LayerReconstruction
from lebm.callbacks.publish import publish_histogram, publish_image, publish_table
from lebm.callbacks.reconstruction import ReconstructionError, ReconstructionGrid, RevisionError
from lebm.callbacks.samples import SampleGrid, SampleSentences
from lebm.callbacks.sentences import SentenceBounds, SentenceQuality

__all__ = [
    "AnomalyDetection",
    "ChainHealth",
    "Divergence",
    "DivergenceError",
    "EvaluationCallback",
    "FrechetDistance",
    "HierarchicalSamples",
    "InterpolationGrid",
    "LatentAttack",
    "LatentPicture",
    "LatentTraversal",
    "LayerClassification",
    "LayerReconstruction",
    "LongChain",
    "PosteriorLatents",
    "ReconstructionError",
    "ReconstructionGrid",
    "RevisionError",
    "SampleGrid",
    "SampleSentences",
    "SentenceBounds",
    "SentenceQuality",
    "StagePicture",
    "publish_histogram",
    "publish_image",
    "publish_table",
]
