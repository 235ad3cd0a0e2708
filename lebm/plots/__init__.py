"""Tensors to pictures, ``(height, width, 3)`` of ``uint8``; no model, no Trainer."""

from lebm.plots.chains import draw_chains
from lebm.plots.grids import image_grid, pair_grid, write_png
from lebm.plots.latents import latent_picture
from lebm.plots.stages import stage_picture

__all__ = ["draw_chains", "image_grid", "latent_picture", "pair_grid", "stage_picture", "write_png"]
