"""A classifier of digits that measures something else is said in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lebm.cli.features import foreign
from lebm.metrics import DigitFeatures, FlatFeatures


def warned(path: str, names: Any = None, features: Any = None) -> str:
    images = SimpleNamespace(description={"path": path, "label_names": names})
    settings: Any = SimpleNamespace(extractor=features or DigitFeatures())
    return foreign(SimpleNamespace(images=images), settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["embedded:mnist", "ylecun/mnist", "/data/MNIST", "./usps", "/home/digits"])
def test_digits_by_path(path: str) -> None:
    assert not warned(path)


@pytest.mark.parametrize("path", ["zalando-datasets/fashion_mnist", "./own", "tanganke/kmnist", "emnist"])
def test_other_images_give_a_warning(path: str) -> None:
    assert warned(path).startswith("the image suite sees through a classifier of handwritten digits, and ")
    assert not warned(path, features=FlatFeatures(2))


def test_digits_by_the_names_of_their_classes() -> None:
    assert not warned("./own", {"0": "0", "1": "1"})
    assert warned("./own", {"0": "coat", "1": "pullover"})
