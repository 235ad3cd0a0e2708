"""Features of a small network trained to read digits; its weights ship with the package."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lebm.files import sha256
from lebm.metrics.features import FeatureExtractor

__all__ = ["DIGIT_WEIGHTS", "DigitFeatures", "digit_network"]

DIGIT_WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"
SIZE = 28


def digit_network() -> nn.Sequential:
    """The digit classifier, ``(B, 1, 28, 28)`` to logits ``(B, 10)``.

    It has three strided convolutions and a linear layer with 64 features. Two layers follow the features.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class DigitFeatures(FeatureExtractor):
    """The 64 numbers before the last ReLU of a classifier of MNIST's training digits.

    They measure sample quality without a download. ``scripts/make_digit_features.py`` trained the network on
    the labels alone, and its weights ship with the package (360 kB). The network knows only digits: use it
    for MNIST and similar data. Colours are averaged to grey, and images of another size are resized to 28 px.
    A distance in these features is not FID and does not compare with FID.

    Example:
        >>> import torch
        >>> from lebm.metrics import DigitFeatures
        >>> features = DigitFeatures()
        >>> features(torch.zeros(5, 1, 28, 28)).shape, features.figure
        (torch.Size([5, 64]), 'frechet_distance/digits64')
    """

    num_features = 64
    figure = "frechet_distance/digits64"

    def __init__(self) -> None:
        super().__init__()
        self._network: nn.Sequential | None = None

    @property
    def digest(self) -> str:
        return sha256(DIGIT_WEIGHTS)[:16]

    @property
    def note(self) -> str:
        return f"features of the digit network that ships with lebm, SHA-256 {self.digest}"

    def prepare(self) -> None:
        if self._network is None:
            from safetensors.torch import load_file

            with torch.inference_mode(False), torch.device("cpu"):
                network = digit_network()
                network.load_state_dict(load_file(DIGIT_WEIGHTS))
                self._network = network.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, 64)`` of images ``(B, C, H, W)`` in [-1, 1]; ``B`` may be zero."""
        return self._layers(x)[:-2](self._grey(x))

    def with_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self(x)
        return features, self._layers(x)[-2:](features)

    def _layers(self, x: Tensor) -> nn.Sequential:
        self.prepare()
        assert self._network is not None
        return self._network.to(x.device)

    def _grey(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"digit features need images (B, C, H, W), not {tuple(x.shape)}")
        x = x.float().mean(dim=1, keepdim=True)
        if x.shape[-2:] != (SIZE, SIZE) and x.shape[0]:
            x = interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        return x.reshape(x.shape[0], 1, SIZE, SIZE)
