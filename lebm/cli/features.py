"""Which network ``lebm evaluate`` measures images with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lebm.metrics.features import FeatureExtractor

__all__ = ["extractor"]

NAMED_FEATURES = {
    "digits": "lebm.metrics.DigitFeatures",
    "inception": "lebm.metrics.InceptionFeatures",
    "pixels": "lebm.metrics.FlatFeatures",
    "random": "lebm.metrics.RandomProjectionFeatures",
}


def extractor(chosen: argparse.Namespace, shape: tuple[int, ...]) -> FeatureExtractor:
    """The network of ``--features``; ``auto`` is the one of digits for small grey images."""
    from lebm.checkpoint.rebuild import build
    from lebm.metrics.features import FeatureExtractor

    name = chosen.features
    if name == "auto":
        name = "digits" if shape[0] == 1 and shape[1] <= 32 and not chosen.inception_weights else "inception"
    arguments: dict[str, Any] = {}
    if name == "inception" and chosen.inception_weights:
        arguments = {"weights_path": chosen.inception_weights}
    if Path(name).suffix in (".pt", ".ts", ".pth"):
        name, arguments = "lebm.metrics.ScriptFeatures", {"path": name}
    description = {"class_path": NAMED_FEATURES.get(name, name), "init_args": arguments}
    return build(description, FeatureExtractor, chosen.trust, "--features")
