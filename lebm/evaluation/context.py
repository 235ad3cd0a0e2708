"""The model, the data and the settings of a suite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lebm.data.text import TextData
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.data import RunImages
from lebm.metrics.digits import DigitFeatures
from lebm.metrics.features import FeatureExtractor

__all__ = ["SentenceSubject", "Settings", "Subject"]


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        seed: of every draw.
        batch_size: images per batch; no result depends on it.
        n_samples: number of generated images in the image suite.
        real_split: the real images for the comparison, ``train`` or ``test``.
        extractor: features of the distances.
        resamples: number of bootstrap samples.
        ood: further out-of-distribution sets, each as the ``path`` of :class:`~lebm.data.ImageData`.
        ood_images: images per set in the out-of-distribution suite.
        likelihood_images: number of test images in the likelihood suite.
        levels: levels of annealed importance sampling.
        chains: annealed chains per image.
        steps: posterior transitions; the default of the model's evaluation if ``None``.
        sample_steps: prior transitions; the model's default if ``None``.

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
        model: in evaluation mode, on its device.
        images: the splits of its data.
        memory: results of one suite that another suite uses too, such as the scores of the test split.

    Example:
        >>> import lebm
        >>> from lebm.evaluation.context import Subject
        >>> from lebm.evaluation.data import RunImages
        >>> model, data = lebm.from_recipe("quickstart")
        >>> data.setup()
        >>> images = RunImages(data.train, data.test, {}, {}, None, data.describe_split())
        >>> Subject(model.eval(), images).description["path"]
        'embedded:mnist'
    """

    model: LatentModel
    images: RunImages
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def description(self) -> dict[str, Any]:
        """The data in plain values, for the record of a result."""
        return self.images.description


@dataclass
class SentenceSubject:
    """A model of sentences and its data.

    Attributes:
        model: in evaluation mode, on its device.
        data: its data, after ``setup``.

    Example:
        >>> import lebm
        >>> from lebm.evaluation.context import SentenceSubject
        >>> model, data = lebm.from_recipe("latent_mle/text_small")
        >>> data.setup()
        >>> SentenceSubject(model.eval(), data).description["path"]
        'embedded:verses'
    """

    model: LatentModel
    data: TextData

    @property
    def description(self) -> dict[str, Any]:
        """The data in plain values, for the record of a result."""
        return self.data.describe_split()
