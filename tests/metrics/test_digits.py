"""The digit network that ships with the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lebm.callbacks import FrechetDistance
from lebm.component import describe
from lebm.data import open_images, to_unit_range
from lebm.metrics import DigitFeatures, frechet_distance
from lebm.metrics.features import DIGIT_WEIGHTS, digit_network
from tests.callbacks.tiny import EchoModel, TinyData, trainer


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """The thousand test images inside the package, which the network was not trained on."""
    found = open_images("embedded:mnist", "test", image_size=28, channels=1)
    return to_unit_range(torch.tensor(found.images[:])), torch.tensor(found.labels[:])


def _distance(a: Tensor, b: Tensor) -> float:
    return float(frechet_distance(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()))


def test_it_reads_digits(digits: tuple[Tensor, Tensor]) -> None:
    x, label = digits
    features, logits = DigitFeatures().with_logits(x)
    assert logits is not None
    assert (logits.argmax(dim=1) == label).double().mean() > 0.98
    assert torch.equal(features, DigitFeatures()(x))


def test_the_shipped_file_is_small_plain_and_named_by_its_digest() -> None:
    assert DIGIT_WEIGHTS.stat().st_size < 1024 * 1024
    with safe_open(DIGIT_WEIGHTS, framework="pt") as file:
        assert set(file.keys()) == set(digit_network().state_dict())
    assert hashlib.sha256(DIGIT_WEIGHTS.read_bytes()).hexdigest().startswith(DigitFeatures().digest)
    assert DigitFeatures().digest in DigitFeatures().note
    assert not DigitFeatures().figure.endswith("fid")
    assert describe(DigitFeatures()) == {"class_path": "lebm.metrics.DigitFeatures", "init_args": {}}


def test_the_distance_grows_with_what_is_wrong_with_the_images(digits: tuple[Tensor, Tensor]) -> None:
    x, label = digits
    features = DigitFeatures()
    half = torch.arange(len(x)) % 2 == 0
    real = features(x[half]).double()
    noise = torch.randn(x[~half].shape, generator=torch.Generator().manual_seed(0))
    same = _distance(real, features(x[~half]).double())
    without_four = _distance(real, features(x[~half & (label != 4)]).double())
    blurred = _distance(
        real, features(torch.nn.functional.avg_pool2d(x[~half], 5, stride=1, padding=2)).double()
    )
    noisy = _distance(real, features((x[~half] + 0.7 * noise).clamp(-1, 1)).double())
    assert 0 < same < without_four < min(blurred, noisy)


def test_colour_size_rows_and_layout(digits: tuple[Tensor, Tensor]) -> None:
    x = digits[0][:6]
    features = DigitFeatures()
    expected = features(x)
    assert expected.shape == (6, 64)
    torch.testing.assert_close(features(x.expand(-1, 3, -1, -1)), expected)
    doubled = features(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert (doubled - expected).norm() < 0.3 * expected.norm()
    torch.testing.assert_close(torch.cat([features(x[:2]), features(x[2:])]), expected)
    assert features(x[:0]).shape == (0, 64)
    with pytest.raises(ValueError, match=r"images \(B, C, H, W\)"):
        features(x.flatten(1))


def test_it_plugs_into_the_callback(tmp_path: Path) -> None:
    callback = FrechetDistance(DigitFeatures(), n_samples=20, split="test")
    result = trainer(tmp_path, [callback]).test(EchoModel(), datamodule=TinyData(), verbose=False)
    assert result[0]["test/frechet_distance/digits64"] > 0
    assert DigitFeatures().digest in callback.protocol["note"]
