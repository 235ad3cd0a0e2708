"""What happens beside training: pictures, figures and guards. None of them knows which method it looks at."""

from lebm.callbacks.anomaly import AnomalyDetection
from lebm.callbacks.base import EvaluationCallback
from lebm.callbacks.frechet import FrechetDistance
from lebm.callbacks.guards import NonFiniteError, StopOnNonFinite
from lebm.callbacks.health import ChainHealth
from lebm.callbacks.images import image_grid, publish_image, write_png
from lebm.callbacks.latents import LatentPicture, latent_picture
from lebm.callbacks.reconstruction import ReconstructionError, ReconstructionGrid
from lebm.callbacks.samples import SampleGrid
from lebm.callbacks.stages import StagePicture, stage_picture

__all__ = [
    "AnomalyDetection",
    "ChainHealth",
    "EvaluationCallback",
    "FrechetDistance",
    "LatentPicture",
    "NonFiniteError",
    "ReconstructionError",
    "ReconstructionGrid",
    "SampleGrid",
    "StagePicture",
    "StopOnNonFinite",
    "image_grid",
    "latent_picture",
    "publish_image",
    "stage_picture",
    "write_png",
]
