"""The base class of all methods: queries of a latent-variable model, and training with a scalar loss."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lebm import checkpoint as checkpoints
from lebm.checkpoint.rebuild import tried
from lebm.component import Component, describe
from lebm.conditions import ConditionalDraws, Given, as_condition, draw_given
from lebm.errors import UserError, UserNotice, at_least
from lebm.estimators.optim import AdamGroups
from lebm.estimators.strategies import check_strategy
from lebm.lightning_private import accumulating, count_begun_epoch, reopen_epoch
from lebm.models.chain_space import ChainSpace
from lebm.models.frozen import frozen
from lebm.models.hierarchical import LatentLayout
from lebm.models.likelihoods import Likelihood
from lebm.models.observations import as_dictionary, check_range, check_rows, checked, event_shape, rows_of
from lebm.models.priors import Prior, StandardNormal
from lebm.models.text_likelihood import CategoricalLikelihood
from lebm.samplers.base import LogDensity, Sampler, precise
from lebm.samplers.chains import gather_pools
from lebm.samplers.noise import Noise, RandomSource

Method = TypeVar("Method", bound="LatentModel")


@runtime_checkable
class HasLayers(Protocol):
    """A model whose latent has layers, see :class:`~lebm.estimators.JointHierarchicalPrior`."""

    layout: LatentLayout
    redraw: Callable[..., Tensor]


@runtime_checkable
class Revises(Protocol):
    """A model with a chain on observations, see :class:`~lebm.estimators.DualMCMCTeaching`."""

    revised: Mapping[str, Tensor]
    revise: Callable[..., Tensor]


class LatentModel(LightningModule, Component, ABC):
    """Base class of the learning methods: networks to train, the loss, sampling, encoding and scores.

    Batches are dictionaries with ``"x"``, ``(B, *event)``, images in [-1, 1], and ``"index"``, ``(B,)``, the
    numbers of the rows; or a tensor ``x``, or a tuple that begins with it. Without ``"index"``, evaluation
    numbers the rows in their order. The range of the first training batch is checked: images in [0, 255] are
    rejected, and images that look like [0, 1] give a warning.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        optimizer: the optimiser and its settings per network.
        scale_likelihood: whether the loss keeps the ``1 / (2 sigma^2)`` and the constant of a Gaussian
            likelihood. ``False`` is the released loss, ``|x - g(z)|^2`` summed over pixels, which Adam treats
            alike up to its epsilon. With :class:`~lebm.inference.Variational` the loss is then no longer a
            bound.
        seed: seed of all random streams of the method.
        noise_shards: number of parts of the global batch with their own random streams, a multiple of the
            number of processes.
        evaluation_steps: default number of posterior transitions of :meth:`encode`, validation, testing and
            evaluation; the length of the sampler if ``None``; 0 for an encoder alone.

    Attributes:
        loaded_weights: ``"averaged"``, ``"raw"``, or ``"plain"`` if the run kept no averages; ``None`` if the
            model was not loaded.
        anomaly_score_name: definition of :meth:`anomaly_score`, stored with every result that uses it.
    """

    loaded_weights: str | None = None
    anomaly_score_name = "-log p(x, z) at one posterior sample"

    def __init__(
        self,
        likelihood: Likelihood,
        optimizer: AdamGroups,
        scale_likelihood: bool = True,
        seed: int = 0,
        noise_shards: int = 8,
        evaluation_steps: int | None = None,
    ) -> None:
        super().__init__()
        at_least(1, noise_shards=noise_shards)
        at_least(0, evaluation_steps=evaluation_steps)
        self.likelihood = likelihood
        self.latent_dim = likelihood.latent_dim
        self.optimizer_settings = optimizer
        self.scale_likelihood = scale_likelihood
        self.seed = seed
        self.noise_shards = noise_shards
        self.evaluation_steps = evaluation_steps
        self._notes: dict[str, Tensor] | None = None
        self._losses: tuple[Any, int] = 0.0, 0  # sum and number of the losses of the epoch
        self._stopping = False
        self._range_is_known = False
        self._rows = 0  # of an evaluation batch

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in {"encode", "log_joint", "reconstruct", "anomaly_score"} & set(vars(cls)):
            setattr(cls, name, checked(vars(cls)[name]))

    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """Return the trained networks by name; each is one parameter group."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the scalar training loss of a batch; :meth:`note` other scalars for the loggers."""

    # The data of a batch

    def _apply_batch_transfer_handler(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert any batch to a dictionary; the public hook of Lightning warns if there is a data module."""
        return super()._apply_batch_transfer_handler(as_dictionary(batch), *args, **kwargs)

    def observations(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the data of a batch in the model's own precision; reject data of another shape."""
        x = rows_of(batch)
        check_rows(x, event_shape(self.likelihood))
        return x.to(self.dtype) if x.is_floating_point() else x

    def check_input(self, x: Tensor) -> Tensor:
        """Return observations in the model's own precision; reject another shape, dtype or range.

        A trainer skips the check of the range.
        """
        x = self.observations({"x": x})
        if self._trainer is None or self._trainer.state.status != TrainerStatus.RUNNING:
            check_range(x, event_shape(self.likelihood))
        return x

    # Queries of every latent-variable model

    def sample(
        self, n: int, *, steps: int | None = None, generator: RandomSource = None, given: Given | None = None
    ) -> Tensor:
        """Draw ``n`` observations ``(n, *event)`` from the model, without observation noise."""
        z = self.sample_latent(n, steps=steps, generator=generator, given=given)
        return self.observe(z, steps=steps, generator=generator)

    def sample_latent(
        self, n: int, *, steps: int | None = None, generator: RandomSource = None, given: Given | None = None
    ) -> Tensor:
        """Draw ``n`` latents ``(n, latent_dim)`` from the prior, or from the prior ``given`` a condition."""
        if given is not None:
            return self.sample_given(n, given, steps=steps, generator=generator).z
        return self.prior_latents(n, steps, generator)

    @abstractmethod
    def prior_latents(self, n: int, steps: int | None, generator: RandomSource) -> Tensor:
        """Draw ``n`` latents ``(n, latent_dim)`` from the prior, where a chain takes ``steps`` steps."""

    def sample_given(
        self,
        n: int,
        given: Given,
        *,
        steps: int | None = None,
        generator: RandomSource = None,
        candidates: int = 16,
    ) -> ConditionalDraws:
        """Draw ``n`` latents from the prior given a condition, and report how they were obtained.

        A :class:`~lebm.errors.UserNotice` is issued if fewer than half of them meet the condition.

        Args:
            n: number of latents; a multiple of the number of rows of data inside the condition.
            given: the condition, or any function from latents ``(B, latent_dim)`` to log-factors ``(B,)``.
            steps: length of the prior chain.
            generator: source of randomness.
            candidates: number of prior samples per latent; at least 256 in total per row of data.
        """
        condition = as_condition(given).to(self.device).on(self.likelihood)
        prior = self.latent_prior or StandardNormal(self.latent_dim)
        space = getattr(self, "space", None) or ChainSpace(prior)
        count = condition.rows * max(256, candidates * n // condition.rows)
        start = self.sample_latent(count, steps=steps, generator=generator)
        with torch.inference_mode(False), frozen(prior, self.likelihood, condition):
            state = space.coordinates(start.clone())
            draws = draw_given(space.target(), condition, state, n, generator, latents=space.latents)
        draws.warn()
        return draws

    @abstractmethod
    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Infer one latent per observation, ``(B, latent_dim)``, from the (approximate) posterior."""

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean observations ``(B, *event)`` of latents."""
        with torch.no_grad(), frozen(self.likelihood):
            return self.likelihood.mean(z)

    @abstractmethod
    def posterior(self, x: Tensor) -> LogDensity:
        """Return ``log p(x, z)`` as a function of ``z: (B, latent_dim)``, unnormalised if the prior is."""

    @checked
    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return ``log p(x, z)``, ``(B,)``, unnormalised if the prior is."""
        with torch.no_grad(), frozen(self):
            return self.posterior(x)(z)

    def observe(self, z: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Return the observations ``(B, *event)`` that :meth:`sample` shows: means, or drawn sentences."""
        with torch.no_grad(), frozen(self.likelihood):
            return self.likelihood.draw(z, generator)

    def reconstruct(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Encode and decode observations ``(B, *event)``."""
        return self.decode(self.encode(x, steps=steps, generator=generator))

    def anomaly_score(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Return the :attr:`anomaly_score_name`, ``(B,)``, which is high where ``x`` is unlikely."""
        return self.score_at(x, self.encode(x, steps=steps, generator=generator))

    def score_at(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the anomaly score ``(B,)`` of ``x: (B, *event)`` at the encodings ``z: (B, latent_dim)``."""
        return -self.log_joint(x, z)

    @property
    def chain_settings(self) -> dict[str, Any]:
        """Samplers in use, as plain values to store with every result."""
        parts = self.named_children()
        samplers = {name: describe(part, strict=False) for name, part in parts if name.endswith("sampler")}
        return {**samplers, "evaluation_steps": self.evaluation_steps}

    def chain_steps(self, name: str) -> int | None:
        """Return the length of the chain ``prior``, ``posterior`` or ``image``; ``None`` if there is none."""
        sampler = getattr(self, f"{name}_sampler", None)
        return sampler.steps if isinstance(sampler, Sampler) else None

    # Queries of some models; see also the protocols above

    @property
    def latent_prior(self) -> Prior | None:
        """Prior of the latents; ``None`` for a plain N(0, I)."""
        return getattr(self, "prior", None)

    @property
    def sentences(self) -> CategoricalLikelihood | None:
        """Likelihood of a model of sentences; ``None`` for a model of other data.

        Raises:
            UserError: if a model of sentences has no vocabulary yet.
        """
        found = next((part for part in self.modules() if isinstance(part, CategoricalLikelihood)), None)
        if found is not None and found.vocabulary is None:
            raise UserError("this model has no vocabulary yet: training gives it the vocabulary of its data")
        return found

    # Parts of a training step

    def updates(self) -> Iterator[None]:
        """Iterate over the optimiser steps of one batch (default: one)."""
        yield

    def after_step(self, optimizer: torch.optim.Optimizer) -> Any:
        """Act on the finished steps of a batch, before a checkpoint may follow (default: nothing)."""

    @property
    def idle_networks(self) -> list[nn.Module]:
        """Networks that do not learn in the current optimiser step (default: none)."""
        return []

    def scaled(self, nll: Tensor, x: Tensor) -> Tensor:
        """Scale a ``-log p(x | z)`` in nats as ``scale_likelihood`` selects."""
        likelihood: Any = self.likelihood
        return nll if self.scale_likelihood else likelihood.squared_error(nll, x[0].numel())

    # Scalars for the loggers

    def note(self, name: str, value: Tensor) -> None:
        """Log a scalar of this training step, detached, if the step is logged.

        The progress bar shows names that begin with ``train/``.
        """
        if self._notes is not None:
            self._notes[name] = value.detach()

    @contextmanager
    def noting(self, wanted: bool = True) -> Iterator[dict[str, Tensor]]:
        """Collect the notes inside the block by name; none unless ``wanted``."""
        notes: dict[str, Tensor] = {}
        self._notes = notes if wanted else None
        try:
            yield notes
        finally:
            self._notes = None

    def follow(
        self,
        name: str,
        sampler: Sampler,
        target: LogDensity,
        start: Tensor,
        noise: RandomSource,
        steps: int | None = None,
    ) -> Tensor:
        """Return the end of a chain, ``(B, *event)``, and note its diagnostics as ``mcmc/<name>/...``."""
        if self._notes is None:
            return sampler(target, start, noise, steps=steps)
        end, info = sampler.run(target, start, noise, steps=steps)
        for key, value in info.scalars().items():
            self.note(f"mcmc/{name}/{key}", value)
        return end

    # Random streams

    def noise(self, purpose: str, batch_idx: int) -> Noise:
        """Return the noise of this process for one purpose in one training step."""
        layout = (self.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)
        key = (self.seed, purpose, self.current_epoch, batch_idx)
        return Noise.shards(*key, shards=self.noise_shards, rank=layout[0], world_size=layout[1])

    def sample_noise(self, purpose: str, index: Tensor) -> Noise:
        """Return noise per row, keyed by ``index: (B,)`` alone, so that scores do not depend on the batch."""
        return Noise.samples(self.seed, purpose, index=index)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the device's generator, which dropout uses, so that a resumed run repeats its draws."""
        seed = Noise([(self.seed, "modules", self.global_rank, self.current_epoch, batch_idx)]).seeds[0]
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":  # torch.manual_seed takes 0.6 ms, because it asks for absent devices
            torch.get_device_module(self.device).manual_seed(seed)
        if batch_idx == 0:
            self._losses = 0.0, 0
        if not self._range_is_known:
            # Divergence handles values that are not finite, because it names their rows.
            x = self.observations(batch).nan_to_num(0.0, 0.0, 0.0)
            check_range(x, event_shape(self.likelihood))
            self._range_is_known = True

    # Hooks of the Trainer

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        every = max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        due = (self.trainer.global_step + 1) % every == 0
        with self.noting(due) as notes:
            loss = self.loss(batch, batch_idx)
        self._losses = self._losses[0] + loss.detach(), self._losses[1] + 1
        if due:
            # Only on steps that are written, because logging costs more than a small training step.
            self.log("loss", loss.detach(), prog_bar=True)
            for name, value in notes.items():
                self.log(name, value, prog_bar=name == "stage" or name.startswith("train/"))
        return loss + touch(self.idle_networks)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of idle networks, so that no weight decay or momentum moves them."""
        for network in self.idle_networks:
            network.zero_grad(set_to_none=True)

    def setup(self, stage: str) -> None:
        """Reject strategies that cannot train a method with chains, and images of another size."""
        check_strategy(self, self.trainer.strategy)
        read = getattr(self.trainer.datamodule, "image_shape", None)  # type: ignore[attr-defined]
        if read is not None:
            check_rows(torch.empty(1, *read), event_shape(self.likelihood))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss for callbacks to monitor; loggers have the loss of single steps."""
        total, number = self._losses
        self.log("loss", total / max(1, number), logger=False, sync_dist=self.trainer.world_size > 1)

    def on_train_batch_end(self, *args: Any) -> None:
        """Postpone a stop between the batches of one step, because no checkpoint holds their gradients."""
        self._stopping = self._stopping or self.trainer.should_stop
        self.trainer.should_stop = self._stopping and not accumulating(self.trainer)

    on_validation_end = on_train_batch_end

    def on_train_start(self) -> None:
        """Try to rebuild the model, and count the epoch with which a resumed run begins."""
        self._stopping = self._range_is_known = False
        _ = self._description
        for optimizer in self.trainer.optimizers:
            self.optimizer_settings.renew(optimizer)
        count_begun_epoch(self.trainer)

    def configure_callbacks(self) -> list[Callback]:
        """Convert the model to double precision before its averages are made and a checkpoint is read."""
        if self.trainer.precision == "64-true":
            self.double()
        return []

    def configure_optimizers(self) -> Any:
        # The gradient scaler of half precision and fused Adam clash in clipping.
        half = self._trainer is not None and self.trainer.precision == "16-mixed"
        epochs = None if self._trainer is None else self.trainer.max_epochs
        optimizer, schedule = self.optimizer_settings.build(self.networks(), not half, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take the steps of a batch, each of which calls the closure for its loss.

        Chain pools of several processes are then gathered, because a checkpoint may follow.
        """
        for _ in self.updates():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            if self.trainer.world_size > 1:
                gather_pools(self)
        self.after_step(getattr(optimizer, "optimizer", optimizer))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each network separately, by default to ``--trainer.gradient_clip_val``."""
        if gradient_clip_algorithm not in (None, "norm"):
            raise UserError(
                f"trainer.gradient_clip_algorithm {gradient_clip_algorithm!s}: networks are clipped by norm"
                " only; leave it out"
            )
        self.optimizer_settings.clip(optimizer, gradient_clip_val)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return ``x``, ``z``, ``reconstruction`` and ``anomaly_score``, with one posterior chain per row."""
        x = self.observations(batch)
        if "index" not in batch:  # the rows in their order, distributed over the processes in turn
            self._rows = len(x) if batch_idx == 0 else self._rows
            place = batch_idx * self._rows + torch.arange(len(x), device=x.device)
            batch["index"] = place * self.trainer.world_size + self.global_rank  # type: ignore[index]
        z = self.encode(x, generator=self.sample_noise("encode", batch["index"]))
        return {"x": x, "z": z, "reconstruction": self.decode(z), "anomaly_score": self.score_at(x, z)}

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the description that rebuilds the model, or why it cannot be rebuilt."""
        checkpoint["lebm_format"] = checkpoints.FORMAT
        checkpoint["hyper_parameters"] = deepcopy(self._description)
        checkpoint["epoch_losses"] = [float(self._losses[0]), self._losses[1]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue inside an epoch that a stop has cut short."""
        self._losses = checkpoint.get("epoch_losses", (0.0, 0))
        reopen_epoch(checkpoint["loops"]["fit_loop"])

    @cached_property
    def _description(self) -> Any:
        """Description that rebuilds the model; the first use warns if it cannot be rebuilt."""
        with isolate_rng():
            description, warning = tried(self)
        if warning and (self._trainer is None or self.trainer.is_global_zero):
            warnings.warn(UserNotice(warning), stacklevel=2)
        return description

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[Method],
        checkpoint_path: Any,
        map_location: Any = "cpu",
        trust: Iterable[str] = (),
        **others: Any,
    ) -> Method:
        """Rebuild a model from its checkpoint alone, see :func:`lebm.load`; no pickle is ever read."""
        if unknown := sorted(others.keys() - {"hparams_file", "strict", "weights_only"}):
            raise TypeError(f"load_from_checkpoint has no argument {unknown[0]!r}; set attributes afterwards")
        found = checkpoints.newest(checkpoint_path)
        return checkpoints.rebuilt(*found, cls, trust=trust, map_location=map_location or "cpu")


def both_energies(
    energy: Callable[[Tensor], Tensor], positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the energies of ``positives: (B, *event)`` and of ``negatives: (C, *event)``.

    One call evaluates both, so that spectral norm takes one power iteration, in at least single precision.
    """
    return precise(energy(torch.cat([positives, negatives]))).split([len(positives), len(negatives)])


def touch(networks: Iterable[nn.Module]) -> Tensor | float:
    """Return zero with a zero gradient for every parameter, because distributed processes wait for all."""
    return sum(0.0 * p.sum() for network in networks for p in network.parameters() if p.requires_grad)
