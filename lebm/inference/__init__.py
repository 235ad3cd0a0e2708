"""Where the latents of data come from in training: a chain, an encoder, or an encoder that is frozen; no Trainer."""

from lebm.inference.parts import Frozen, Inference, Inferred, PosteriorDraw, ShortRun, Variational

__all__ = ["Frozen", "Inference", "Inferred", "PosteriorDraw", "ShortRun", "Variational"]
