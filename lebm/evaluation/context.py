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
        >>> import numpy as np
        >>> from lebm.data.dataset import ImageRows
        >>> from lebm.estimators import AdamGroups, LatentMLE
        >>> from lebm.evaluation.context import Subject
        >>> from lebm.evaluation.data import RunImages
        >>> from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
        >>> from lebm.samplers import Langevin
        >>> model = LatentMLE(
        ...     GaussianLikelihood(MLPGenerator(2, (1, 4, 4), hidden=[8]), sigma=0.5),
        ...     EnergyPrior(MLPEnergy(2, hidden=[8])),
        ...     prior_sampler=Langevin(4, 0.4),
        ...     posterior_sampler=Langevin(3, 0.1),
        ...     optimizer=AdamGroups({"generator": 1e-3, "energy": 1e-3}),
        ... )
        >>> rows = ImageRows([np.zeros((10, 1, 4, 4), np.uint8)], np.zeros(10, np.int64), np.arange(10))
        >>> images = RunImages(None, rows, {}, {}, held_out_label=None, description={"path": "black"})
        >>> Subject(model.eval(), images).description
        {'path': 'black'}
    """

    model: LatentEstimator
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
        >>> from pathlib import Path
        >>> from lebm.data import TextData
        >>> from lebm.estimators import AdamGroups, LatentMLE
        >>> from lebm.evaluation.context import SentenceSubject
        >>> from lebm.models import CategoricalLikelihood, EnergyPrior, MLPEnergy, RecurrentGenerator
        >>> from lebm.samplers import Langevin
        >>> generator = RecurrentGenerator(2, vocabulary_size=10, max_length=8, embedding=4, hidden=4)
        >>> model = LatentMLE(
        ...     CategoricalLikelihood(generator),
        ...     EnergyPrior(MLPEnergy(2, hidden=[8])),
        ...     prior_sampler=Langevin(4, 0.4),
        ...     posterior_sampler=Langevin(3, 0.1),
        ...     optimizer=AdamGroups({"generator": 1e-3, "energy": 1e-3}),
        ... )
        >>> for split in ("train", "test"):
        ...     _ = Path(f"{split}.txt").write_text("one red fish\\none blue fish\\n" * 8)
        >>> data = TextData(".", batch_size=2, vocabulary_size=10, max_length=8)
        >>> data.setup()
        >>> SentenceSubject(model.eval(), data).description["path"]
        '.'
    """

    model: LatentEstimator
    data: TextData

    @property
    def description(self) -> dict[str, Any]:
        """The data in plain values, for the record of a result."""
        return self.data.describe_split()
