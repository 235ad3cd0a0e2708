"""Names and settings of the suites for the command line, without an import of torch.

Each setting with a help text is a flag of ``lebm evaluate``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lebm.errors import UserError

if TYPE_CHECKING:
    from lebm.metrics.features import FeatureExtractor

__all__ = ["CHAINS_PER_IMAGE", "SUITE_NAMES", "Settings", "check_suite"]

SUITE_NAMES = ("image", "anomaly", "ood", "likelihood", "chains", "revision", "text")
CHAINS_PER_IMAGE = 4


def check_suite(name: str) -> None:
    """Reject a name that is neither a suite of lebm nor the path of a function.

    Raises:
        UserError: with the list of the suites.
    """
    if "." not in name and name not in (*SUITE_NAMES, "all"):
        own = "a suite of your own is named MODULE.FUNCTION"
        raise UserError(f"--suite {name}: choose from {', '.join((*SUITE_NAMES, 'all'))}; {own}")


def _flag(default: Any, text: str, **more: Any) -> Any:
    """Return a field that is also a flag, with the arguments of ``argparse`` for it."""
    return field(default=default, metadata={"help": text, **more})


def _digits() -> FeatureExtractor:
    from lebm.metrics.features import DigitFeatures

    return DigitFeatures()


@dataclass(frozen=True)
class Settings:
    """Settings of the suites. ``lebm evaluate --help`` describes the fields that are not listed here.

    Attributes:
        seed: seed of all random numbers.
        batch_size: number of images per batch, which affects no result.
        extractor: features of the distances.
        chains: number of annealed chains per image.
        steps: number of posterior transitions; the default of the model's evaluation if ``None``.
        ood: additional out-of-distribution sets, each a ``path`` of :class:`~lebm.data.ImageData`.

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
    n_samples: int = _flag(10_000, "number of generated images in the image suite (default: %(default)s)")
    real_split: str = _flag(
        "train", "split of real images in the image suite (default: %(default)s)", choices=("train", "test")
    )
    ood: tuple[str, ...] = _flag(
        (), "a further out-of-distribution set of the ood suite, repeatable", action="append", metavar="DATA"
    )
    ood_images: int = _flag(2000, "number of images per set in the ood suite (default: %(default)s)")
    likelihood_images: int = _flag(32, "number of test images for the likelihood (default: %(default)s)")
    levels: int = _flag(100, "number of levels of annealed importance sampling (default: %(default)s)")
    resamples: int = _flag(1000, "number of bootstrap samples (default: %(default)s)")
    sample_steps: int | None = _flag(None, "length of the prior chain (default: the model's own)")
