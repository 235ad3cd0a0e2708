"""Energies, priors, generators, encoders and likelihoods. Nothing here needs Lightning."""

from lebm.models.encoders import ConvEncoder, DiagonalGaussian, GaussianEncoder, MLPEncoder
from lebm.models.energies import Energy, MLPEnergy, SumEnergy
from lebm.models.generators import ConvGenerator, Generator, MLPGenerator
from lebm.models.identity import IdentityGenerator
from lebm.models.likelihoods import GaussianLikelihood, Likelihood
from lebm.models.priors import EnergyPrior, Prior, StandardNormal
from lebm.models.ratios import LogConstant, RatioPrior, RatioProduct

__all__ = [
    "ConvEncoder",
    "ConvGenerator",
    "DiagonalGaussian",
    "Energy",
    "EnergyPrior",
    "GaussianEncoder",
    "GaussianLikelihood",
    "Generator",
    "IdentityGenerator",
    "Likelihood",
    "LogConstant",
    "MLPEncoder",
    "MLPEnergy",
    "MLPGenerator",
    "Prior",
    "RatioPrior",
    "RatioProduct",
    "StandardNormal",
    "SumEnergy",
]
