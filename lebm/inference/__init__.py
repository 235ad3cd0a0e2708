"""Where the latents of data come from in training: a chain, an encoder, a frozen encoder; no Trainer."""

from lebm.inference.parts import Frozen, Inference, Inferred, PosteriorDraw, ShortRun, Variational

__all__ = ["Frozen", "Inference", "Inferred", "PosteriorDraw", "ShortRun", "Variational"]
