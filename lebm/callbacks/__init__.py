"""What happens beside training: pictures, figures and guards. None of them knows which method it looks at."""

from lebm.callbacks.anomaly import AnomalyDetection
from lebm.callbacks.base import EvaluationCallback
from lebm.callbacks.divergence import Divergence, DivergenceError
from lebm.callbacks.frechet import FrechetDistance
from lebm.callbacks.health import ChainHealth
from lebm.callbacks.hierarchical import HierarchicalSamples, LatentTraversal, LayerReconstruction
from lebm.callbacks.hierarchical_classes import LayerClassification, MutualInformationGap
from lebm.callbacks.images import image_grid, publish_image, write_png
from lebm.callbacks.latents import LatentPicture, latent_picture
from lebm.callbacks.reconstruction import ReconstructionError, ReconstructionGrid
from lebm.callbacks.samples import SampleGrid
from lebm.callbacks.stages import StagePicture, stage_picture
from lebm.callbacks.text import SampleSentences, SentenceBounds, SentenceQuality

__all__ = [
    "AnomalyDetection",
    "ChainHealth",
    "Divergence",
    "DivergenceError",
    "EvaluationCallback",
    "FrechetDistance",
    "HierarchicalSamples",
    "LatentPicture",
    "LatentTraversal",
    "LayerClassification",
    "LayerReconstruction",
    "MutualInformationGap",
    "ReconstructionError",
    "ReconstructionGrid",
    "SampleGrid",
    "SampleSentences",
    "SentenceBounds",
    "SentenceQuality",
    "StagePicture",
    "image_grid",
    "latent_picture",
    "publish_image",
    "stage_picture",
    "write_png",
]
