"""Samplers, which move a tensor under a log-density: ``sampler(log_density, init, generator=None)``."""

from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.base import Info, LogDensity, Sampler, log_density_gradient
from lebm.samplers.chains import PersistentChains, gather_pools
from lebm.samplers.diagnostics import autocorrelation, bulk_ess, split_rhat, tail_ess
from lebm.samplers.importance import (
    IndependenceMetropolis,
    Proposal,
    SamplingImportanceResampling,
    resample,
    weight_ess,
)
from lebm.samplers.langevin import Langevin, Schedule
from lebm.samplers.metropolis import HMC, MALA
from lebm.samplers.noise import Noise, RandomSource
from lebm.samplers.targets import Boltzmann, Masked
from lebm.samplers.tempering import ParallelTempering
from lebm.samplers.trace import Finding, Trace, findings, record

__all__ = [
    "HMC",
    "MALA",
    "Adaptive",
    "AnnealedImportanceSampling",
    "Boltzmann",
    "Finding",
    "IndependenceMetropolis",
    "Info",
    "Langevin",
    "LogDensity",
    "LogZ",
    "Masked",
    "Noise",
    "ParallelTempering",
    "PersistentChains",
    "Proposal",
    "RandomSource",
    "Sampler",
    "SamplingImportanceResampling",
    "Schedule",
    "Trace",
    "autocorrelation",
    "bulk_ess",
    "findings",
    "gather_pools",
    "log_density_gradient",
    "record",
    "resample",
    "split_rhat",
    "tail_ess",
    "weight_ess",
]
