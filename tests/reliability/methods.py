"""Every method, small, on images of 8 by 8: one entry here puts a method into the batteries of faults,
resumption and layout.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch

from lebm import inference
from lebm.checkpoint.rebuild import build
from lebm.estimators import LatentModel

__all__ = ["BASES", "KINDS", "METHODS", "description", "model_of"]

Plain = dict[str, Any]
SHAPE = [1, 8, 8]


def part(path: str, **arguments: Any) -> Plain:
    return {"class_path": f"lebm.{path}", "init_args": arguments}


def langevin(steps: int, step_size: float, **arguments: Any) -> Plain:
    return part("samplers.Langevin", steps=steps, step_size=step_size, **arguments)


def optimizer(*names: str, **arguments: Any) -> Plain:
    return part(
        "estimators.AdamGroups",
        lr=dict.fromkeys(names, 0.001),
        **{"betas": [0.5, 0.999], "lr_decay": 0.9, **arguments},
    )


def gaussian(generator: Plain) -> Plain:
    return part("models.GaussianLikelihood", generator=generator, sigma=0.3)


MLP = part("models.MLPGenerator", latent_dim=3, out_shape=SHAPE, hidden=[16])
DIMS = [2, 1, 2]

METHODS: dict[str, Plain] = {
    "latent_mle": part(
        "estimators.LatentMLE",
        likelihood=gaussian(MLP),
        prior=part("models.EnergyPrior", energy=part("models.MLPEnergy", latent_dim=3, hidden=[12, 12])),
        prior_sampler=part("samplers.PersistentChains", kernel=langevin(4, 0.4, max_grad_norm=5.0)),
        posterior_sampler=langevin(3, 0.1),
        optimizer=optimizer("generator", "energy", max_grad_norm={"generator": 50.0}),
        noise_shards=4,
    ),
    "multistage_nce": part(
        "estimators.MultiStageNCE",
        likelihood=gaussian(MLP),
        prior=part(
            "models.RatioPrior",
            energy=part(
                "models.RatioProduct",
                active=part("models.MLPEnergy", latent_dim=3, hidden=[12, 12], output_bias=True),
                max_stages=3,
            ),
        ),
        prior_sampler=part("samplers.PersistentChains", kernel=langevin(2, 0.4), slots=2, restart_rate=0.2),
        posterior_sampler=langevin(3, 0.1),
        optimizer=optimizer("generator", "energy", weight_decay={"energy": 0.01}),
        stages=part("estimators.FixedStages", steps=[4, 3, 50], held_out=5, window=2),
        annealing=part(
            "samplers.AnnealedImportanceSampling",
            kernel=part("samplers.MALA", steps=1, step_size=0.5),
            levels=3,
        ),
        annealing_chains=20,
        noise_shards=4,
    ),
    "joint_hierarchical": part(
        "estimators.JointHierarchicalPrior",
        likelihood=gaussian(
            part(
                "models.LadderGenerator",
                latent_dims=DIMS,
                out_shape=SHAPE,
                blocks=[["linear 64"], ["linear 8"], ["linear 6"]],
            )
        ),
        prior=part(
            "models.EnergyPrior",
            energy=part("models.ConcatenatedEnergy", latent_dims=DIMS, hidden=[8, 8], spectral_norm=True),
        ),
        prior_sampler=langevin(4, 0.4),
        optimizer=optimizer("generator", "encoder", "energy"),
        inference=part(
            "inference.Variational",
            encoder=part(
                "models.LadderEncoder",
                latent_dims=DIMS,
                in_shape=SHAPE,
                blocks=[["linear 8"], ["linear 8"], ["linear 6"]],
            ),
        ),
        noise_shards=4,
    ),
    "joint_conditional": part(
        "estimators.JointHierarchicalPrior",
        inference=part("inference.ShortRun"),
        likelihood=gaussian(part("models.BottomLayer", latent_dims=[3, 2], generator=MLP)),
        prior=part(
            "models.HierarchicalPrior",
            start="normal",
            base=part("models.GaussianChain", latent_dims=[3, 2], hidden=[8]),
            energy=part(
                "models.LayerEnergies",
                energies=[
                    part("models.MLPEnergy", latent_dim=dim, hidden=[8], activation="leaky_relu")
                    for dim in (3, 2)
                ],
            ),
        ),
        prior_sampler=part("samplers.PersistentChains", kernel=langevin(4, 0.4), slots=2, restart_rate=0.2),
        posterior_sampler=langevin(3, 0.1),
        optimizer=optimizer("generator", "reference", "energy"),
        noise_shards=4,
    ),
    "dual_mcmc": part(
        "estimators.DualMCMCTeaching",
        energy=part("models.ResNetEnergy", in_shape=SHAPE, channels=[4, 4], downsample=[True, False]),
        likelihood=gaussian(MLP),
        encoder=part("models.MLPEncoder", latent_dim=3, in_shape=SHAPE, hidden=[12]),
        image_sampler=langevin(3, 0.001, clamp=[-1.0, 1.0]),
        posterior_sampler=langevin(3, 0.1),
        optimizer=optimizer("energy", "generator", "encoder"),
        temperature=4e-8,
        teaching_weight=50.0,
        revised_inference_weight=0.1,
        scale_likelihood=False,
        noise_shards=4,
    ),
    "dual_mcmc_alternate": part(
        "estimators.DualMCMCTeaching",
        energy=part("models.ResNetEnergy", in_shape=SHAPE, channels=[4, 4], downsample=[True, False]),
        likelihood=gaussian(MLP),
        encoder=part("models.MLPEncoder", latent_dim=3, in_shape=SHAPE, hidden=[12]),
        image_sampler=part("samplers.PersistentChains", kernel=langevin(3, 0.001), slots=2, restart_rate=0.2),
        posterior_sampler=langevin(3, 0.1),
        optimizer=optimizer("energy", "generator", "encoder", weight_decay={"generator": 0.01}),
        temperature=4e-8,
        teaching_weight=0.0,
        revised_inference_weight=0.0,
        schedule="alternate",
        noise_shards=4,
    ),
}


def _with(method: str, kind: str) -> Plain:
    """A method whose latents come from another kind of inference; encoders mirror the generator."""
    entry = copy.deepcopy(METHODS[method])
    arguments = entry["init_args"]
    arguments["inference"] = part(f"inference.{kind}")
    arguments["posterior_sampler"] = langevin(3, 0.1) if kind in ("Taught", "Remembered") else None
    learns = {"Frozen": ["energy"], "Remembered": ["generator", "energy"]}
    arguments["optimizer"] = optimizer(*learns.get(kind, ["generator", "energy", "encoder"]))
    return entry


OTHERS = [
    name
    for name in inference.__all__
    if inspect.isclass(kind := getattr(inference, name))
    and issubclass(kind, inference.Inference)
    and name not in ("Inference", "ShortRun")
]
"""Every kind of inference but the default."""

KINDS: dict[str, Plain] = {
    f"{method}+{kind}": _with(method, kind)
    for method in ("latent_mle", "multistage_nce", "joint_hierarchical")
    for kind in OTHERS
    if (method, kind) != ("joint_hierarchical", "Variational")  # in METHODS
}


def _fitted(name: str, **changed: Any) -> Plain:
    """A method whose prior has a base that is fitted twice."""
    entry = copy.deepcopy({**METHODS, **KINDS}[name])
    arguments = entry["init_args"]
    arguments["prior"]["init_args"]["base"] = part(
        "models.GaussianMixture", latent_dim=sum(DIMS) if name.startswith("joint") else 3, components=[1, 3]
    )
    arguments["fit_base"] = part("estimators.FitBase", at=[2, 4], rows=60, **changed)
    arguments["optimizer"]["init_args"]["weight_decay"] = {"energy": 0.1}
    return entry


BASES: dict[str, Plain] = {
    "latent_mle+base": _fitted("latent_mle"),
    "latent_mle+Variational+base": _fitted("latent_mle+Variational", networks=False),
    "multistage_nce+base": _fitted("multistage_nce"),
    "joint_hierarchical+base": _fitted("joint_hierarchical"),
}
"""Methods with a base that is fitted, after the second and the fourth step."""


def description(method: str, **changed: Any) -> Plain:
    """A copy of an entry with some arguments of the method changed."""
    entry = copy.deepcopy({**METHODS, **KINDS, **BASES}[method])
    entry["init_args"] |= changed
    return entry


def model_of(method: str, **changed: Any) -> LatentModel:
    """The method itself, from fixed initial weights."""
    torch.manual_seed(0)
    return build(description(method, **changed), LatentModel)
