"""Samplers: ``sampler(log_density, init, generator=None)`` moves one tensor under one log-density. Nothing here needs Lightning."""

from lebm.samplers.base import Info, LogDensity, Sampler, log_density_gradient
from lebm.samplers.langevin import Langevin
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["Info", "Langevin", "LogDensity", "Noise", "RandomSource", "Sampler", "log_density_gradient"]
