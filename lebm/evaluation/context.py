"""The model, the data and the settings of a suite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lebm.data.text import TextData
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.data import RunImages
from lebm.metrics.digits import DigitFeatures
from lebm.metrics.features import FeatureExtractor

__all__ = ["SentenceSubject", "Settings", "Subject"]


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        seed: of every draw.
        batch_size: images at once; no result depends on it.
        n_samples: generated images of the image suite.
        real_split: the split that these are compared with, ``train`` or ``test``.
        extractor: features of the distances.
        resamples: of the bootstrap.
        ood: further out-sets, as ``path`` of :class:`~lebm.data.ImageData`.
        ood_images: images per set in the OOD suite.
        likelihood_images: test images of the likelihood suite.
        levels: of annealed importance sampling.
        chains: annealed chains per image.
        steps: posterior transitions; those of the model's evaluation if ``None``.
        sample_steps: prior transitions; the model's own if ``None``.

    Example:
        >>> from lebm.evaluation.context import Settings
        >>> Settings(seed=1).n_samples
        10000
    """

    seed: int = 0
    batch_size: int = 250
    n_samples: int = 10_000
    real_split: str = "train"
    extractor: FeatureExtractor = field(default_factory=DigitFeatures)
    resamples: int = 1000
    ood: tuple[str, ...] = ()
    ood_images: int = 2000
    likelihood_images: int = 32
    levels: int = 100
    chains: int = 16
    steps: int | None = None
    sample_steps: int | None = None


@dataclass
class Subject:
    """The model under evaluation and its data.

    Attributes:
        model: in evaluation mode on its device.
        images: its splits.
        memory: results of one suite that another uses, such as the scores of the test split.
    """

    model: LatentEstimator
    images: RunImages
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def description(self) -> dict[str, Any]:
        """What the data were, as plain values."""
        return self.images.description


@dataclass
class SentenceSubject:
    """A model of sentences and its data.

    Attributes:
        model: in evaluation mode on its device.
        data: with its splits read.
    """

    model: LatentEstimator
    data: TextData

    @property
    def description(self) -> dict[str, Any]:
        """What the data were, as plain values."""
        return self.data.describe_split()
