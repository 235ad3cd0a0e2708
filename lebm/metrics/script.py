"""Features of a network in a TorchScript file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lebm.errors import UserError
from lebm.files import sha256
from lebm.metrics.features import FeatureExtractor

__all__ = ["ScriptFeatures"]


class ScriptFeatures(FeatureExtractor):
    """The output of a TorchScript module on images in [-1, 1], flattened to ``(B, d)``.

    The name of the distance has the file's name and the first digits of its SHA-256; it is never FID. A
    TorchScript file is a program: use only a file that you trust.

    Args:
        path: the file, as ``torch.jit.save`` writes it.

    Example:
        >>> import torch
        >>> from lebm.metrics import ScriptFeatures
        >>> torch.jit.save(torch.jit.script(torch.nn.Flatten()), "flat.pt")
        >>> ScriptFeatures("flat.pt")(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 64])
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._network: nn.Module | None = None
        self._digest = ""

    @property
    def figure(self) -> str:
        return f"frechet_distance/{Path(self.path).stem}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        self.prepare()
        return self._digest

    def prepare(self) -> None:
        if self._network is not None:
            return
        try:
            self._digest = sha256(self.path)[:16]
            with torch.inference_mode(False):
                self._network = torch.jit.load(self.path, map_location="cpu").eval()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error} (TorchScript features)") from error
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.path}: not a TorchScript file ({str(error).splitlines()[0][:80]})"
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        self.prepare()
        assert self._network is not None
        return self._network.to(x.device)(x.float()).flatten(1)
