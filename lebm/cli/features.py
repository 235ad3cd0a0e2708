"""Which network ``lebm evaluate`` measures images with, and whether it fits them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lebm.evaluation.context import Settings, Subject
    from lebm.metrics.features import FeatureExtractor

__all__ = ["extractor", "foreign"]

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


def foreign(subject: Subject, settings: Settings) -> str:
    """A warning, if a classifier of digits is to measure images that are no digits by path and names; empty
    otherwise.
    """
    from lebm.metrics.digits import DigitFeatures

    described = subject.images.description
    path, names = str(described.get("path")).lower(), described.get("label_names") or {}
    known = re.search(r"mnist|digit|usps", path) and not re.search(r"fashion|kmnist|kuzushi|emnist", path)
    if not isinstance(settings.extractor, DigitFeatures) or known:
        return ""
    if names and all(name == str(number) for number, name in names.items()):
        return ""
    return (
        f"the image suite sees through a classifier of handwritten digits, and {described.get('path')} are"
        " not MNIST-like digits by name; compare its values only between runs on these data, or choose"
        " --features inception, random or pixels"
    )
