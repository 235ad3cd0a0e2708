"""What every latent-variable model of lebm answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor

from lebm.component import describe
from lebm.errors import UserError
from lebm.estimators.optim import AdamGroups
from lebm.estimators.training import OneLossModule
from lebm.models.encoders import DiagonalGaussian
from lebm.models.hierarchical import LatentLayout
from lebm.models.likelihoods import Likelihood
from lebm.models.observations import check_range, check_rows, checked, event_shape, rows_of
from lebm.models.priors import Prior
from lebm.models.text_likelihood import CategoricalLikelihood, sentence_likelihood
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = [
    "DrawsObservations",
    "HasLayers",
    "HasPosterior",
    "LatentEstimator",
    "ModelChain",
    "NoChainError",
    "Revises",
    "contrast",
]


class NoChainError(UserError):
    """The model draws without a chain, so that there is none to look at."""


@dataclass(frozen=True)
class ModelChain:
    """A chain of a model.

    Attributes:
        target: the unnormalised log-density that the chain samples.
        sampler: the kernel and its length.
        start: ``(chains, *event)``, where the chains start.
    """

    target: LogDensity
    sampler: Sampler
    start: Tensor


@runtime_checkable
class DrawsObservations(Protocol):
    """A likelihood that can be drawn from."""

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """A draw ``(B, *event)`` of ``p(x | z)``, observation noise included."""


@runtime_checkable
class HasPosterior(Protocol):
    """A model whose posterior density can be differentiated."""

    def posterior(self, x: Tensor) -> LogDensity:
        """Unnormalised ``log p(z | x)`` as a function of ``z: (B, latent_dim)``."""


@runtime_checkable
class HasLayers(Protocol):
    """A model whose latent has layers, bottom layer first."""

    layout: LatentLayout

    def redraw(
        self, z: Tensor, layers: list[int], *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """``z: (B, latent_dim)`` with some layers drawn anew from the prior given the others."""

    def log_joint_above(
        self, x: Tensor, z: Tensor, k: int, *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """``log p(x, z)``, ``(B,)``, with the ``k`` lowest layers drawn anew from the prior."""


@runtime_checkable
class Revises(Protocol):
    """A model that revises its generator's observations by a chain on observations."""

    revised: Mapping[str, Tensor]

    def revise(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Observations ``(B, *event)`` after the chain that starts at ``x``."""


class LatentEstimator(OneLossModule):
    """Base of the learning methods: what to train, what the loss is, and how to draw, encode and score.

    Batches are dictionaries with ``"x"``, ``(B, *event)``, images in [-1, 1], and ``"index"``, ``(B,)``, the
    numbers of the rows. Without ``"index"``, evaluation numbers the rows as they come. The first training
    batch is looked at: images in [0, 255] are refused, and images that look like [0, 1] give a warning.

    Args:
        optimizer: the optimiser and its settings per network.
        seed: seed of every random stream of the method.
        noise_shards: number of parts of the global batch; the number of processes must divide it.
        evaluation_steps: default number of posterior transitions of :meth:`encode`, and so of validation,
            testing and evaluation; the length of the sampler if ``None``.

    Attributes:
        loaded_weights: ``"averaged"``, ``"raw"``, or ``"plain"`` where the run kept no averages; ``None``
            for a model that was not loaded.
        anomaly_score_name: what :meth:`anomaly_score` is; it is stored beside every value that is made of it.
    """

    latent_dim: int
    loaded_weights: str | None = None
    anomaly_score_name = "-log p(x, z) at one posterior sample"

    def __init__(
        self, optimizer: AdamGroups, seed: int = 0, noise_shards: int = 8, evaluation_steps: int | None = None
    ) -> None:
        super().__init__(optimizer, seed, noise_shards)
        self.evaluation_steps = evaluation_steps
        self._range_is_known = False
        self._rows = 0  # of an evaluation batch

    @classmethod
    def from_former(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Today's arguments for those of a checkpoint that chose between two sources of noise."""
        return {name: value for name, value in arguments.items() if name != "noise_source"}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in {"encode", "log_joint", "reconstruct", "anomaly_score"} & set(vars(cls)):
            setattr(cls, name, checked(vars(cls)[name]))

    def check_input(self, x: Tensor) -> None:
        """Refuse observations that this model cannot take; their range is not looked at while a trainer runs.

        Raises:
            UserError: in one line, for another shape, type or range.
        """
        shape = event_shape(self.observation_model)
        check_rows(x, shape)
        if self._trainer is None or self._trainer.state.status != TrainerStatus.RUNNING:
            check_range(x, shape)

    # What any latent-variable model can answer

    @abstractmethod
    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``n`` observations ``(n, *event)`` from the model, without observation noise."""

    @abstractmethod
    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``n`` latents ``(n, latent_dim)`` from the prior."""

    @abstractmethod
    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """One latent per observation, ``(B, latent_dim)``, from the (approximate) posterior."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The mean observation ``(B, *event)`` of latents."""

    @abstractmethod
    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Unnormalised ``log p(x, z)``, shape ``(B,)``."""

    def reconstruct(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Encode, then decode: ``(B, *event)``."""
        return self.decode(self.encode(x, steps=steps, generator=generator))

    def anomaly_score(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """:attr:`anomaly_score_name`, shape ``(B,)``; high where ``x`` is unlikely."""
        return self.score_at(x, self.encode(x, steps=steps, generator=generator))

    def score_at(self, x: Tensor, z: Tensor) -> Tensor:
        """The anomaly score ``(B,)`` of ``x: (B, *event)`` with the encodings ``z: (B, latent_dim)``."""
        return -self.log_joint(x, z)

    @property
    def chain_settings(self) -> dict[str, Any]:
        """The samplers in use, as plain values; stored beside every result."""
        parts = self.named_children()
        samplers = {name: describe(part, strict=False) for name, part in parts if name.endswith("sampler")}
        return {**samplers, "evaluation_steps": self.evaluation_steps}

    @property
    def observation_model(self) -> Likelihood | None:
        """``p(x | z)``; ``None`` for a model that has none of its own."""
        likelihood = dict(self.named_children()).get("likelihood")
        return likelihood if isinstance(likelihood, Likelihood) else None

    def chain_steps(self, name: str) -> int | None:
        """Transitions of the chain ``prior``, ``posterior`` or ``image``; ``None`` for a model without it."""
        sampler = dict(self.named_children()).get(f"{name}_sampler")
        return sampler.steps if isinstance(sampler, Sampler) else None

    # What some models can answer; see also the types in lebm.estimators.base

    @property
    def latent_prior(self) -> Prior | None:
        """The prior of the latents; ``None`` if it is N(0, I) and nothing more can be asked of it."""
        return None

    @property
    def sentences(self) -> CategoricalLikelihood | None:
        """The likelihood of a model of sentences; ``None`` for a model of something else.

        Raises:
            UserError: if a model of sentences never saw data.
        """
        return sentence_likelihood(self)

    def inferred(self, x: Tensor) -> DiagonalGaussian | None:
        """``q(z | x)`` of the inference model; ``None`` for a model without one."""
        return None

    def prior_chain(self, n: int, generator: RandomSource = None) -> ModelChain:
        """``n`` chains of the prior, from the starts that sampling uses.

        Raises:
            NoChainError: if the prior is drawn without a chain.
        """
        raise NoChainError("drawn exactly, no chain to look at")

    def posterior_chain(self, x: Tensor, generator: RandomSource = None) -> ModelChain:
        """A posterior chain for each row of ``x: (B, *event)``, from a draw of the reference.

        Raises:
            NoChainError: if latents are inferred without a chain.
        """
        raise NoChainError("from the inference network, no chain to look at")

    # Evaluation steps

    def observations(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The data of a batch in the model's own precision.

        Raises:
            UserError: in one line, for a batch that is no such dictionary or holds other data.
        """
        x = rows_of(batch)
        check_rows(x, event_shape(self.observation_model))
        return x.to(self.dtype) if x.is_floating_point() else x

    def on_train_start(self) -> None:
        super().on_train_start()
        self._range_is_known = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if (
            not self._range_is_known
        ):  # numbers that are not finite are left to Divergence, which names their rows
            x = self.observations(batch).nan_to_num(0.0, 0.0, 0.0)
            check_range(x, event_shape(self.observation_model))
            self._range_is_known = True

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """``x``, ``z``, ``reconstruction`` and ``anomaly_score``, from one posterior chain per row."""
        x = self.observations(batch)
        if "index" not in batch:  # the rows as they come, dealt out to the processes in turn
            self._rows = len(x) if batch_idx == 0 else self._rows
            place = batch_idx * self._rows + torch.arange(len(x), device=x.device)
            batch["index"] = place * self.trainer.world_size + self.global_rank  # type: ignore[index]
        z = self.encode(x, generator=self.sample_noise("encode", batch["index"]))
        return {"x": x, "z": z, "reconstruction": self.decode(z), "anomaly_score": self.score_at(x, z)}

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)


def contrast(energy: Callable[[Tensor], Tensor], positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean energy of ``positives: (B, *event)`` less that of ``negatives: (C, *event)``, a scalar.

    Both are evaluated in one call: spectral norm then takes one power iteration per step, and both see the
    same weights. The means are taken in single precision or better, because the difference of two means in
    half precision is mostly rounding.
    """
    energies = energy(torch.cat([positives, negatives]))
    up, down = energies.to(torch.promote_types(energies.dtype, torch.float32)).split(
        [len(positives), len(negatives)]
    )
    return up.mean() - down.mean()
