"""Small models of the third method, in double precision, for tests that look for the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import grad

from lebm.estimators import AdamGroups, JointHierarchicalPrior
from lebm.inference import Frozen, Inference, ShortRun, Variational
from lebm.models import (
    BottomLayer,
    ConcatenatedEnergy,
    EnergyPrior,
    GaussianChain,
    GaussianLikelihood,
    HierarchicalPrior,
    LadderEncoder,
    LadderGenerator,
    LayerEnergies,
    MLPEnergy,
    MLPGenerator,
    Prior,
)
from lebm.samplers import Langevin

DIMS = [2, 1, 2]
SHAPE = (1, 4, 4)
RATES = {"generator": 1e-3, "encoder": 1e-3, "energy": 1e-3, "reference": 1e-3}


def encoder() -> LadderEncoder:
    return LadderEncoder(DIMS, SHAPE, [["linear 8"], ["linear 8"], ["linear 6"]])


def ladder() -> LadderGenerator:
    return LadderGenerator(DIMS, SHAPE, [["linear 16"], ["linear 8"], ["linear 6"]])


def concatenated(spectral_norm: bool = False) -> EnergyPrior:
    return EnergyPrior(ConcatenatedEnergy(DIMS, [8, 8], spectral_norm=spectral_norm))


def chain_prior(**kwargs: Any) -> HierarchicalPrior:
    return HierarchicalPrior(
        LayerEnergies([MLPEnergy(size, [8]) for size in DIMS]), GaussianChain(DIMS, hidden=[8]), **kwargs
    )


def rates(*names: str) -> AdamGroups:
    return AdamGroups({name: RATES[name] for name in names})


def variational(prior: Prior | None = None, **kwargs: Any) -> JointHierarchicalPrior:
    """A ladder with one energy on all layers."""
    torch.manual_seed(0)
    prior = concatenated() if prior is None else prior
    names = ["generator", "encoder", *(["energy"] if not prior.is_exact else [])]
    return JointHierarchicalPrior(
        GaussianLikelihood(ladder(), 0.5),
        prior,
        Langevin(5, 0.4),
        rates(*names),
        Variational(encoder(), **_own(kwargs)),
        noise_shards=4,
        **kwargs,
    ).double()


def _own(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the inference, taken out of those of a model."""
    return {name: kwargs.pop(name) for name in ("kl", "warm_up", "prior_pull", "backbone") if name in kwargs}


def conditional(scheme: str, prior: Prior | None = None, **kwargs: Any) -> JointHierarchicalPrior:
    """Conditional Gaussians with an energy a layer."""
    torch.manual_seed(0)
    prior = chain_prior() if prior is None else prior
    likelihood = GaussianLikelihood(BottomLayer(MLPGenerator(DIMS[0], SHAPE, [8]), DIMS), 0.5)
    names = {
        "variational": ["generator", "encoder", "energy", "reference"],
        "mcmc": ["generator", "energy", "reference"],
    }
    trained = names.get(scheme, ["energy"])
    if prior.is_exact:
        trained.remove("energy")
    if scheme == "mcmc":
        kwargs["posterior_sampler"] = Langevin(4, 0.1)
    own = _own(kwargs)
    kinds: dict[str, Callable[[], Inference]] = {
        "variational": lambda: Variational(encoder(), **own),
        "mcmc": ShortRun,
        "two_stage": lambda: Frozen(encoder(), **own),
    }
    return JointHierarchicalPrior(
        likelihood, prior, Langevin(5, 0.4), rates(*trained), kinds[scheme](), noise_shards=4, **kwargs
    ).double()


def batch_of(n: int = 8) -> dict[str, torch.Tensor]:
    x = torch.rand(n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"x": x, "index": torch.arange(n), "label": torch.arange(n) % 3}


def gradients(model: JointHierarchicalPrior, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Flat gradients by network."""
    networks = model.networks()
    parts = {name: list(network.parameters()) for name, network in networks.items()}
    found = grad(
        loss, [p for each in parts.values() for p in each], retain_graph=True, materialize_grads=True
    )
    sizes, flat = [len(each) for each in parts.values()], iter(found)
    return {
        name: torch.cat([next(flat).flatten() for _ in range(size)])
        for name, size in zip(parts, sizes, strict=True)
    }
