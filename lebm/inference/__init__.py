"""Inference of latents of data by a chain, an encoder, or both; without Lightning."""

from lebm.inference.base import Inference, Inferred, PosteriorChain
from lebm.inference.chains import Remembered, ShortRun
from lebm.inference.encoders import Frozen, Taught, Variational, mirror_encoder

__all__ = [
    "Frozen",
    "Inference",
    "Inferred",
    "PosteriorChain",
    "Remembered",
    "ShortRun",
    "Taught",
    "Variational",
    "mirror_encoder",
]
