"""Feature extractors for distances between sets of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from lebm.component import Component
from lebm.errors import UserError, at_least
from lebm.extras import need
from lebm.files import sha256

# First digits of the SHA-256 of the TensorFlow Inception of 2015-12-05, converted by torch-fidelity.
_PUBLISHED_WEIGHTS = "6726825d"


class FeaturesUnavailableError(RuntimeError):
    """An error for default weights that are missing and cannot be downloaded.

    Example:
        >>> from lebm.metrics import FeaturesUnavailableError
        >>> issubclass(FeaturesUnavailableError, RuntimeError)
        True
    """


class FeatureExtractor(nn.Module, Component):
    """Base class of the extractors, which map images ``(B, C, H, W)`` in [-1, 1] to features ``(B, d)``.

    Attributes:
        figure: name of the distance in these features; ``"fid"`` only for the features that define FID.
        note: a remark beside the distance; empty by default.
        digest: first digits of the SHA-256 of the weights; empty if the arguments identify the extractor.

    Example:
        >>> import torch
        >>> from lebm.metrics import FeatureExtractor
        >>> class MeanColour(FeatureExtractor):
        ...     figure = "frechet_distance/mean_colour"
        ...     forward = lambda self, x: x.mean(dim=(2, 3))
        >>> MeanColour()(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 3])
    """

    figure: str
    note: str = ""
    digest: str = ""

    def with_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features ``(B, d)``, and logits ``(B, classes)`` of a classifier or ``None``."""
        return self(x), None

    def prepare(self) -> None:
        """Load the weights, once.

        Raises:
            FeaturesUnavailableError: if default weights are missing and cannot be downloaded.
            UserError: if given weights are missing or unreadable.
        """


class FlatFeatures(FeatureExtractor):
    """Features of pixels averaged to a small grid: fast and offline, but not a measure of image content.

    Args:
        size: side of the grid, at least 1; features have ``channels * size**2`` numbers.

    Raises:
        ValueError: if ``size`` is below 1.

    Example:
        >>> import torch
        >>> from lebm.metrics import FlatFeatures
        >>> FlatFeatures(size=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 48])
    """

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        at_least(1, size=size)
        self.size = size
        self.figure = f"frechet_distance/pixels{size}"

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, self.size).flatten(1)


class InceptionFeatures(FeatureExtractor):
    """Features of the TensorFlow Inception network of 2015, by torch-fidelity.

    The 2048 features of ``pool_3`` define FID; with other weights or another layer the distance has another
    name. Images are rounded to 8 bits and resized to 299 px by the original bilinear rule, and grey images
    are repeated to three channels. The first use downloads the weights (91 MB) into torch's hub folder,
    unless ``weights_path`` names a file.

    Args:
        weights_path: path of a local copy of ``weights-inception-2015-12-05-6726825d.pth``.
        num_features: 2048, or 64, 192 or 768 for an earlier layer.

    Raises:
        ValueError: for another number of features.

    Example:
        >>> from lebm.metrics import InceptionFeatures
        >>> InceptionFeatures().figure, InceptionFeatures(num_features=64).figure
        ('fid', 'frechet_distance/inception64-6726825d')
    """

    def __init__(
        self, weights_path: str | None = None, num_features: Literal[64, 192, 768, 2048] = 2048
    ) -> None:
        super().__init__()
        if num_features not in (64, 192, 768, 2048):
            raise ValueError(f"num_features must be 64, 192, 768 or 2048, not {num_features}")
        self.weights_path = weights_path
        self.num_features = num_features
        self._network: nn.Module | None = None
        self._identify(_PUBLISHED_WEIGHTS)

    @staticmethod
    def default_weights() -> Path:
        """Return the path of the downloaded weights, which may not exist."""
        need("torch_fidelity", "the Inception network")
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        return Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name

    def _identify(self, digest: str) -> None:
        layer = "" if self.num_features == 2048 else str(self.num_features)
        published = digest == _PUBLISHED_WEIGHTS and not layer
        self.digest = digest
        self.figure = "fid" if published else f"frechet_distance/inception{layer}-{digest}"

    def prepare(self) -> None:
        if self._network is not None:
            return
        try:
            self._load(self.weights_path or str(self.default_weights()))
        except UserError as error:
            if self.weights_path is not None:
                raise
            raise FeaturesUnavailableError(f"FID is left out: {error}") from error

    def _load(self, path: str) -> None:
        """Open a file of weights, without unpickling; the default file is downloaded if it is absent."""
        need("torch_fidelity", "the Inception network")
        from torch_fidelity import feature_extractor_inceptionv3 as published

        file, layers = Path(path), [str(self.num_features), "logits_unbiased"]
        if self.weights_path is None and not file.exists():
            where = f"give weights_path (lebm evaluate --inception-weights) or put them at {file}"
            with _explained(f"no Inception weights ({{}}); {where}"):
                file.parent.mkdir(parents=True, exist_ok=True)
                url = published.URL_INCEPTION_V3
                torch.hub.download_url_to_file(url, path, _PUBLISHED_WEIGHTS, progress=False)
        if not file.is_file():
            raise UserError(f"{file}: no such file (Inception weights)")
        with _explained(f"{file}: not a file of plain tensors, so it is not opened (Inception weights)"):
            torch.load(path, map_location="cpu", weights_only=True)
        wrong = f"{file}: not the weights of torch-fidelity's Inception network ({{}})"
        with _explained(wrong), torch.inference_mode(False):
            self._network = published.FeatureExtractorInceptionV3(
                "inception-v3-compat", layers, feature_extractor_weights_path=path, verbose=False
            )
        self._identify(sha256(file)[:8])

    def forward(self, x: Tensor) -> Tensor:
        return self._layers(x, 1)[0]

    def with_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._layers(x, 2)

    def _layers(self, x: Tensor, count: int) -> tuple[Any, ...]:
        """Return the first ``count`` of features and logits."""
        if self._network is None:
            raise RuntimeError("call prepare() first")
        if x.shape[1] == 1:
            self.note = "grey images repeated to three channels"
            x = x.expand(-1, 3, -1, -1)
        if not x.shape[0]:
            return (x.new_zeros(0, self.num_features), x.new_zeros(0, 1008))[:count]
        levels = ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        network: Any = self._network.to(x.device)
        network.features_list = [str(self.num_features), "logits_unbiased"][:count]
        return tuple(network(levels))

    def train(self, mode: bool = True) -> InceptionFeatures:
        super().train(False)
        return self


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Raise an error inside the block as a UserError; ``{}`` stands for the first line of its message."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(problem.replace("{}", reason)) from error


DIGIT_WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"
SIZE = 28


def digit_network() -> nn.Sequential:
    """Return the digit classifier ``(B, 1, 28, 28) -> (B, 10)`` of three strided convolutions and two linear
    layers.
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
    """Features of a classifier of MNIST's training digits, its 64 numbers before the last ReLU.

    They measure sample quality for MNIST and similar data without a download. The weights (360 kB) are part
    of the package, trained by ``scripts/make_embedded.py`` on the labels alone. Colours are averaged to grey,
    and images of another size are resized to 28 px. A distance in these features cannot be compared with FID.

    Example:
        >>> import torch
        >>> from lebm.metrics import DigitFeatures
        >>> features = DigitFeatures()
        >>> features(torch.zeros(5, 1, 28, 28)).shape, features.figure
        (torch.Size([5, 64]), 'frechet_distance/digits64')
    """

    figure = "frechet_distance/digits64"

    def __init__(self) -> None:
        super().__init__()
        self._network: nn.Sequential | None = None
        self.digest = sha256(DIGIT_WEIGHTS)[:16]
        self.note = f"features of the digit network that ships with lebm, SHA-256 {self.digest}"

    def prepare(self) -> None:
        if self._network is None:
            from safetensors.torch import load_file

            with torch.inference_mode(False), torch.device("cpu"):
                network = digit_network()
                network.load_state_dict(load_file(DIGIT_WEIGHTS))
                self._network = network.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, 64)`` of images ``(B, C, H, W)`` in [-1, 1]; ``B`` may be zero."""
        if x.dim() != 4:
            raise ValueError(f"digit features need images (B, C, H, W), not {tuple(x.shape)}")
        x = x.float().mean(dim=1, keepdim=True)
        if x.shape[-2:] != (SIZE, SIZE) and x.shape[0]:
            x = interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        return self._layers(x)[:-2](x.reshape(x.shape[0], 1, SIZE, SIZE))

    def with_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self(x)
        return features, self._layers(x)[-2:](features)

    def _layers(self, x: Tensor) -> nn.Sequential:
        self.prepare()
        assert self._network is not None
        return self._network.to(x.device)
