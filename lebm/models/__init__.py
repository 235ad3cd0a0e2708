"""Energies, priors, generators, encoders and likelihoods, none of which needs Lightning."""

from lebm.models.adapters import (
    DiffusersAutoencoder,
    ModuleAutoencoder,
    ModuleEncoder,
    OwnEncoder,
    VectorUnits,
)
from lebm.models.classifier import LatentClassifier
from lebm.models.encoders import ConvEncoder, DiagonalGaussian, GaussianEncoder, MLPEncoder, SentenceEncoder
from lebm.models.energies import ClassEnergy, Energy, MLPEnergy, ModuleEnergy
from lebm.models.frozen import frozen
from lebm.models.generators import ConvGenerator, Generator, IdentityGenerator, MLPGenerator
from lebm.models.hierarchical import ConcatenatedEnergy, ConvEnergy, LatentLayout, LayerEnergies
from lebm.models.hierarchical_priors import GaussianChain, GaussianHierarchy, HierarchicalPrior
from lebm.models.ladder import BottomLayer, LadderEncoder, LadderGenerator
from lebm.models.likelihoods import GaussianLikelihood, Likelihood
from lebm.models.mixture import GaussianMixture
from lebm.models.priors import EnergyPrior, Prior, StandardNormal
from lebm.models.ratios import RatioPrior, RatioProduct
from lebm.models.resnet import ResNetEnergy, ResNetGenerator
from lebm.models.sequence_generators import RecurrentGenerator, SequenceGenerator, TransformerGenerator
from lebm.models.text_likelihood import CategoricalLikelihood, Vocabulary

__all__ = [
    "BottomLayer",
    "CategoricalLikelihood",
    "ClassEnergy",
    "ConcatenatedEnergy",
    "ConvEncoder",
    "ConvEnergy",
    "ConvGenerator",
    "DiagonalGaussian",
    "DiffusersAutoencoder",
    "Energy",
    "EnergyPrior",
    "GaussianChain",
    "GaussianEncoder",
    "GaussianHierarchy",
    "GaussianLikelihood",
    "GaussianMixture",
    "Generator",
    "HierarchicalPrior",
    "IdentityGenerator",
    "LadderEncoder",
    "LadderGenerator",
    "LatentClassifier",
    "LatentLayout",
    "LayerEnergies",
    "Likelihood",
    "MLPEncoder",
    "MLPEnergy",
    "MLPGenerator",
    "ModuleAutoencoder",
    "ModuleEncoder",
    "ModuleEnergy",
    "OwnEncoder",
    "Prior",
    "RatioPrior",
    "RatioProduct",
    "RecurrentGenerator",
    "ResNetEnergy",
    "ResNetGenerator",
    "SentenceEncoder",
    "SequenceGenerator",
    "StandardNormal",
    "TransformerGenerator",
    "VectorUnits",
    "Vocabulary",
    "frozen",
]
