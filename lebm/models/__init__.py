"""Energies, priors, generators, encoders and likelihoods. Nothing here needs Lightning."""

from lebm.models.energies import Energy, MLPEnergy, SumEnergy
from lebm.models.generators import Generator, MLPGenerator
from lebm.models.likelihoods import GaussianLikelihood, Likelihood
from lebm.models.priors import EnergyPrior, Prior, StandardNormal

__all__ = [
    "Energy",
    "EnergyPrior",
    "GaussianLikelihood",
    "Generator",
    "Likelihood",
    "MLPEnergy",
    "MLPGenerator",
    "Prior",
    "StandardNormal",
    "SumEnergy",
]
