"""How much an evaluation measures; each setting with a help text is a flag of ``lebm evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lebm.metrics.features import FeatureExtractor

__all__ = ["Settings"]


def _flag(default: Any, text: str, **more: Any) -> Any:
    """A field that is a flag too, with the arguments that ``argparse`` takes for it."""
    return field(default=default, metadata={"help": text, **more})


def _digits() -> FeatureExtractor:
    from lebm.metrics.features import DigitFeatures

    return DigitFeatures()


@dataclass(frozen=True)
class Settings:
    """How much is measured. The fields without a text below are explained by ``lebm evaluate --help``.

    Attributes:
        seed: seed of every draw.
        batch_size: images per batch; no result depends on it.
        extractor: features of the distances.
        chains: annealed chains per image.
        steps: posterior transitions; the default of the model's evaluation if ``None``.
        ood: further out-of-distribution sets, each as the ``path`` of :class:`~lebm.data.ImageData`.

    Example:
        >>> from lebm.evaluation.settings import Settings
        >>> Settings(seed=1).n_samples
        10000
    """

    seed: int = 0
    batch_size: int = 250
    extractor: FeatureExtractor = field(default_factory=_digits)
    chains: int = 16
    steps: int | None = None
    n_samples: int = _flag(10_000, "number of generated images in the image suite (default %(default)s)")
    real_split: str = _flag(
        "train", "the split that they are compared with (default %(default)s)", choices=("train", "test")
    )
    ood: tuple[str, ...] = _flag(
        (), "a further out-of-distribution set of the ood suite, repeatable", action="append", metavar="DATA"
    )
    ood_images: int = _flag(2000, "number of images per set in the ood suite (default %(default)s)")
    likelihood_images: int = _flag(32, "number of test images in the likelihood suite (default %(default)s)")
    levels: int = _flag(100, "number of levels of annealed importance sampling (default %(default)s)")
    resamples: int = _flag(1000, "number of bootstrap samples (default %(default)s)")
    sample_steps: int | None = _flag(None, "length of the prior chain (default: the model's own)")
