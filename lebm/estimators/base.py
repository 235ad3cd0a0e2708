"""What all methods share: the answers a latent-variable model gives, and the training plumbing around one
scalar loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lebm.component import Component, describe
from lebm.errors import UserError
from lebm.estimators.answers import ModelChain, NoChainError
from lebm.estimators.optim import AdamGroups
from lebm.models.encoders import DiagonalGaussian
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.models.text_likelihood import CategoricalLikelihood, sentence_likelihood
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import gather_pools
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["LatentEstimator", "contrast"]


class LatentEstimator(LightningModule, Component):
    """Base of the learning methods.

    A method says which networks it trains (:meth:`networks`), what its loss is (:meth:`loss`) and how it
    draws, encodes and scores. Batches are dictionaries with ``"x"`` of shape ``(B, *event)`` (images in [-1,
    1]) and ``"index"`` of shape ``(B,)``.

    Args:
        optimizer: the optimiser and its per-network settings.
        seed: of every random stream of the method.
        noise_shards: pieces the global batch is cut into; the number of processes must divide it.
        evaluation_steps: posterior transitions of :meth:`encode` where none are asked for, and so of
            validation, testing and every figure; the sampler's own number if ``None``.
    """

    latent_dim: int
    anomaly_score_name = "-log p(x, z) at one posterior sample"
    """What :meth:`anomaly_score` is, to be recorded beside every figure made of it."""

    def __init__(
        self, optimizer: AdamGroups, seed: int = 0, noise_shards: int = 8, evaluation_steps: int | None = None
    ) -> None:
        super().__init__()
        self.evaluation_steps = evaluation_steps
        self.optimizer_settings = optimizer
        self.seed = seed
        self.noise_shards = noise_shards
        self._notes: dict[str, Tensor] | None = None

    # What a method provides

    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """The trained networks by name; each is one parameter group."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The scalar training loss. :meth:`note` scalars that are worth logging."""

    def note(self, name: str, value: Tensor) -> None:
        """Log a scalar of this training step under ``name``, detached; nothing on a step that is not logged."""
        if self._notes is not None:
            self._notes[name] = value.detach()

    @contextmanager
    def noting(self, wanted: bool = True) -> Iterator[dict[str, Tensor]]:
        """Collect what is noted inside; nothing if it is not wanted."""
        notes: dict[str, Tensor] = {}
        self._notes = notes if wanted else None
        try:
            yield notes
        finally:
            self._notes = None

    # What any latent-variable model can answer

    @abstractmethod
    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``n`` observations ``(n, *event)`` from the model, without observation noise."""

    @abstractmethod
    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``n`` latents ``(n, latent_dim)`` from the prior."""

    @abstractmethod
    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """One latent ``(B, latent_dim)`` an observation, from the (approximate) posterior;
        ``evaluation_steps`` by default.
        """

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
        """``-log p(x, z)`` at a posterior sample, shape ``(B,)``; high for what the model finds unlikely."""
        return -self.log_joint(x, self.encode(x, steps=steps, generator=generator))

    @property
    def chain_settings(self) -> dict[str, Any]:
        """The samplers in use, as plain values, to be recorded beside every figure."""
        samplers = {
            name: describe(module) for name, module in self.named_children() if name.endswith("sampler")
        }
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

    # What some models can answer; see also the types in lebm.estimators.answers

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
        """``n`` chains of the prior, as sampling runs them.

        Raises:
            NoChainError: if the prior is drawn without a chain.
        """
        raise NoChainError("drawn exactly, no chain to look at")

    def posterior_chain(self, x: Tensor, generator: RandomSource = None) -> ModelChain:
        """A chain of the posterior for each observation of ``x: (B, *event)``, as :meth:`encode` runs them.

        Raises:
            NoChainError: if latents are inferred without a chain.
        """
        raise NoChainError("from the inference network, no chain to look at")

    # Randomness

    def follow(
        self,
        name: str,
        sampler: Sampler,
        target: LogDensity,
        start: Tensor,
        noise: RandomSource,
        steps: int | None = None,
    ) -> Tensor:
        """The end of a chain; its health is noted as ``mcmc/<name>/...`` on a step that is logged."""
        if self._notes is None:
            return sampler(target, start, noise, steps=steps)
        end, info = sampler.run(target, start, noise, steps=steps)
        for key, value in info.scalars().items():
            self.note(f"mcmc/{name}/{key}", value)
        return end

    def noise(self, purpose: str, batch_idx: int) -> Noise:
        """This process's noise for one purpose in one training step."""
        rank, world_size = (
            (self.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)
        )
        key = (self.seed, purpose, self.current_epoch, batch_idx)
        return Noise.shards(*key, shards=self.noise_shards, rank=rank, world_size=world_size)

    def sample_noise(self, purpose: str, index: Tensor) -> Noise:
        """Noise of single samples in evaluation, so that a sample's score depends on neither its neighbours
        nor the layout.
        """
        return Noise.samples(self.seed, purpose, index=index)

    def on_train_start(self) -> None:
        """Count the epoch that a resumed run begins with, where Lightning forgets to.

        It does after a checkpoint of an epoch's last step, whose epoch it then takes for done. Without this,
        a checkpoint of the last step of the epoch that follows has the wrong epoch number, and a run resumed
        from *that* one trains with the wrong data and noise."""
        loop = self.trainer.fit_loop
        progress = loop.epoch_progress
        done = progress.current.processed  # type: ignore[attr-defined]
        if loop.restarted_mid_epoch and progress.current.ready == done:
            progress.increment_ready()
            progress.increment_started()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Re-seed torch's own generator, which modules such as dropout use, so that a resumed run repeats it."""
        digest = Noise([(self.seed, "modules", self.global_rank, self.current_epoch, batch_idx)])
        torch.manual_seed(digest.seeds[0])

    # Training and evaluation steps

    def observations(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The data of a batch in the model's own precision."""
        return batch["x"].to(self.dtype) if batch["x"].is_floating_point() else batch["x"]

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        due = (self.trainer.global_step + 1) % max(1, self.trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        with self.noting(due) as notes:
            loss = self.loss(batch, batch_idx)
        if (
            due
        ):  # logging costs more than a small training step, so it happens only on the steps that are written
            self.log("loss", loss.detach(), prog_bar=True)
            shown = {
                name: value for name, value in notes.items() if name == "stage" or name.startswith("train/")
            }
            self.log_dict(shown, prog_bar=True)
            self.log_dict({name: value for name, value in notes.items() if name not in shown})
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One posterior chain a batch; callbacks read ``x``, ``z``, ``reconstruction`` and ``anomaly_score``
        from the result.
        """
        x = self.observations(batch)
        z = self.encode(x, generator=self.sample_noise("encode", batch["index"]))
        return {"x": x, "z": z, "reconstruction": self.decode(z), "anomaly_score": -self.log_joint(x, z)}

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        half = (
            self._trainer is not None and self.trainer.precision == "16-mixed"
        )  # a gradient scaler and fused Adam clash in clipping
        optimizer, schedule = self.optimizer_settings.build(self.networks(), fused=not half)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take the step and, with several processes, gather chain pools: a checkpoint may be written by one
        process after any step.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.trainer.world_size > 1:
            gather_pools(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each network by itself; ``--trainer.gradient_clip_val`` is the limit where a network has none
        of its own.

        Raises:
            UserError: for ``--trainer.gradient_clip_algorithm value``.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise UserError(
                f"trainer.gradient_clip_algorithm {gradient_clip_algorithm}: networks are clipped by norm"
                " only; leave it out"
            )
        self.optimizer_settings.clip(optimizer, gradient_clip_val)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: Any = "cpu",
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        trust: Iterable[str] = (),
    ) -> LatentEstimator:
        """Rebuild a model from its checkpoint alone; see :func:`lebm.checkpoint.load`.

        Raises:
            ValueError: for ``weights_only=False`` and for ``hparams_file``: neither is ever needed.
            UserError: if the file cannot be read, names a class outside the trusted packages, or holds
                another method.
        """
        from lebm.checkpoint import load

        if weights_only is False or hparams_file is not None:
            raise ValueError(
                "lebm checkpoints hold no pickles and need no hparams_file; leave both arguments at their"
                " defaults"
            )
        return load(checkpoint_path, cls, trust=trust, map_location=map_location or "cpu")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how to rebuild the model as plain data."""
        description = describe(self)
        assert isinstance(description, dict)
        checkpoint["lebm_format"] = 1
        checkpoint["hyper_parameters"] = description


def contrast(energy: Callable[[Tensor], Tensor], positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean energy of ``positives: (B, *event)`` less that of ``negatives: (C, *event)``, a scalar.

    One call for both: spectral norm takes one power iteration a step, and both see the same weights. The
    means are taken in single precision at least: the difference of two half-precision means is mostly
    rounding."""
    energies = energy(torch.cat([positives, negatives]))
    up, down = energies.to(torch.promote_types(energies.dtype, torch.float32)).split(
        [len(positives), len(negatives)]
    )
    return up.mean() - down.mean()
