"""An energy on images, a generator and an inference model, each taught by the others' revised samples (paper
4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lebm.estimators.answers import ModelChain
from lebm.estimators.base import LatentEstimator, contrast
from lebm.estimators.optim import AdamGroups
from lebm.estimators.starts import (
    ImageStart,
    LatentStart,
    are_revisions,
    check_starts,
    start_of_images,
    start_of_latents,
)
from lebm.estimators.turns import Schedule, Turns, touch
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.models.energies import Energy
from lebm.models.frozen import frozen
from lebm.models.likelihoods import GaussianLikelihood
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.boltzmann import Boltzmann
from lebm.samplers.noise import RandomSource, normal

__all__ = ["DualMCMCTeaching"]


@dataclass(frozen=True)
class Revision:
    """What the two chains made of one batch.

    Attributes:
        x: data, ``(B, *event)``.
        z: draws of N(0, I), ``(B, latent_dim)``.
        generated: ``g(z)``, with its gradient.
        revised: ``x~``, the end of the image chain, detached.
        inferred: ``q(z | x)``, with its gradient.
        revised_z: ``z~``, the end of the posterior chain, detached.
    """

    x: Tensor
    z: Tensor
    generated: Tensor
    revised: Tensor
    inferred: DiagonalGaussian
    revised_z: Tensor


class DualMCMCTeaching(LatentEstimator):
    r"""Cui, Han: *Learning Energy-based Model via Dual-MCMC Teaching*, NeurIPS 2023.

    Three models: an energy with density :math:`\pi(x) \propto \exp(-E(x) / T)`, a generator
    :math:`p(x, z) = N(z; 0, I)\, N(x; g(z), \sigma^2 I)` and an inference model :math:`q(z \mid x)`. A chain on :math:`\pi` revises
    the generator's image ``g(z)`` into :math:`\tilde x`, and a chain on :math:`p(z \mid x)` revises a draw of
    :math:`q` into
    :math:`\tilde z`. Both are detached, so that one loss gives each network the gradient of its own objective:

    .. math:: L = E(x) - E(\tilde x) - \log p(x \mid \tilde z) - S \log p(\tilde x \mid z)
              - \log q(\tilde z \mid x) - \lambda \log q(z \mid \tilde x).

    ``sample`` draws from the energy's chain, started by the generator; with ``steps=0`` from the generator
    alone. ``encode`` likewise: the posterior chain, started by the inference model, or with ``steps=0`` a
    draw of the inference model. ``log_joint`` is the generator's, and ``anomaly_score`` is :math:`E(x) / T`,
    up to a constant.

    Args:
        energy: the energy on observations, ``(B, *event) -> (B,)``.
        likelihood: ``p(x | z)``, with the generator inside.
        encoder: the inference model.
        image_sampler: chain on the energy's density. Plain Langevin with step n at temperature T is the
            released chain whose drift has a step s and whose noise has a scale n, with ``T = (n / s)^2``.
        posterior_sampler: chain on ``p(z | x)``.
        optimizer: learning rates of ``energy``, ``generator`` and ``encoder``.
        temperature: the T above, positive; ``(noise / step)^2`` of the released chain, 4e-6 for CIFAR-10.
        teaching_weight: S, the weight of revised images in the generator's loss beside that of data; 1 in the
            theory, 50 and 70 as released.
        revised_inference_weight: lambda, the weight of revised images in the inference model's loss beside
            that of data; 1 in the theory, 0.1 as released.
        schedule: ``"simultaneous"``, one optimiser step a batch, or ``"alternate"``, two: first generator and
            inference model, then the energy, on new chains from the new generator's images of the same ``z``
            (the final release).
        image_start: chains start at ``g(z)`` (``"generator"``, as released), at a draw of ``p(x | z)``
            (``"likelihood"``, as in the theory), or at uniform noise in [-1, 1] (``"noise"``, the baseline).
        latent_start: posterior chains start at a draw of ``q`` (``"encoder"``) or of N(0, I) (``"prior"``,
            the baseline).
        scale_likelihood: keep the ``1 / (2 sigma^2)`` and the constant of the likelihood in the loss.
            ``False`` is the released loss, squared errors summed over pixels.
        scale_energy: divide the energy's part of the loss by the temperature, as released; under Adam it only
            changes what Adam's epsilon means, but it makes clipping and half precision impossible.
        batch_statistics: BatchNorm inside chains uses the statistics of the batch instead of the running
            ones, as released, which makes the chains of a batch depend on each other. In neither case does a
            chain change the running ones.
        seed: of every random stream.
        noise_shards: pieces of the global batch; the number of processes must divide it.
        evaluation_steps: posterior transitions in validation, testing and prediction; those of
            ``posterior_sampler`` if ``None``.

    Attributes:
        revised: images and latents of the last training step before and after their chains, detached, for
            guards.

    Raises:
        ValueError: if networks disagree on the latent size, an argument is out of range, or revised images
            are to teach where they are not revisions of the generator's.
    """

    anomaly_score_name = "E(x) / T of the energy on images"

    def __init__(
        self,
        energy: Energy,
        likelihood: GaussianLikelihood,
        encoder: GaussianEncoder,
        image_sampler: Sampler,
        posterior_sampler: Sampler,
        optimizer: AdamGroups,
        temperature: float = 1.0,
        teaching_weight: float = 1.0,
        revised_inference_weight: float = 1.0,
        schedule: Schedule = "simultaneous",
        image_start: ImageStart = "generator",
        latent_start: LatentStart = "encoder",
        scale_likelihood: bool = True,
        scale_energy: bool = False,
        batch_statistics: bool = False,
        seed: int = 0,
        noise_shards: int = 8,
        evaluation_steps: int | None = None,
    ) -> None:
        super().__init__(optimizer, seed, noise_shards, evaluation_steps)
        self.energy = energy
        self.likelihood = likelihood
        self.encoder = encoder
        self.image_sampler = image_sampler
        self.posterior_sampler = posterior_sampler
        self.temperature = temperature
        self.teaching_weight, self.revised_inference_weight = teaching_weight, revised_inference_weight
        self.image_start = image_start
        self.latent_start = latent_start
        self.scale_likelihood = scale_likelihood
        self.scale_energy = scale_energy
        self.batch_statistics = batch_statistics
        self.latent_dim = likelihood.latent_dim
        self.revised: dict[str, Tensor] = {}
        self.turns = Turns(schedule)
        self._check()
        optimizer.check(self.networks())

    def _check(self) -> None:
        if self.likelihood.latent_dim != self.encoder.latent_dim:
            raise ValueError(
                f"the generator takes {self.latent_dim} latent coordinates but the encoder gives"
                f" {self.encoder.latent_dim}"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if min(self.teaching_weight, self.revised_inference_weight) < 0:
            raise ValueError(
                f"weights must not be negative: {self.teaching_weight}, {self.revised_inference_weight}"
            )
        check_starts(self.image_start, self.latent_start, self.posterior_sampler)
        if self._teaches and not are_revisions(self.image_start, self.image_sampler):
            raise ValueError(
                "images whose chains start at noise or persist are not revisions of g(z), so they cannot"
                " teach: set teaching_weight and revised_inference_weight to 0, or image_start to generator"
            )

    @property
    def _teaches(self) -> bool:
        """Whether revised images take part in what generator and inference model learn."""
        return bool(self.teaching_weight or self.revised_inference_weight)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"energy": self.energy, "generator": self.likelihood, "encoder": self.encoder}

    # The loss

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The whole equation; with ``schedule="alternate"`` the part of the networks whose turn it is."""
        x = self.observations(batch)
        z = self.noise("latents", batch_idx).normal((len(x), self.latent_dim), dtype=x.dtype, device=x.device)
        if not self.turns.teachers:
            return self._second_step(x, z, batch_idx)
        made = self._revise(x, z, batch_idx)
        total = self.generator_loss(made) + self.encoder_loss(made)
        if self.turns.energy:
            return total + self.energy_loss(x, made.revised)
        self.turns.earlier = total.detach()
        return total + touch(self.energy)

    def _second_step(self, x: Tensor, z: Tensor, batch_idx: int) -> Tensor:
        """The energy against new chains, which start at the new generator's images of the same latents."""
        revised = self._revise_images(self.decode(z), self.noise("image again", batch_idx))
        self.revised["revised images"] = revised
        return self.energy_loss(x, revised) + touch(self.likelihood, self.encoder) + self.turns.earlier

    def _revise(self, x: Tensor, z: Tensor, batch_idx: int) -> Revision:
        generated, inferred = self.likelihood.mean(z), self.encoder(x)
        revised = generated.detach()
        if self.turns.energy or self._teaches:
            revised = self._revise_images(revised, self.noise("image", batch_idx))
        revised_z = self._revise_latents(x, inferred, self.noise("posterior", batch_idx))
        self.revised = {
            "generated images": generated.detach(),
            "revised images": revised,
            "revised latents": revised_z,
        }
        return Revision(x, z, generated, revised, inferred, revised_z)

    def energy_loss(self, x: Tensor, revised: Tensor) -> Tensor:
        """``E(x) - E(x~)``, by the temperature if ``scale_energy``."""
        gap = contrast(self.energy, x, revised)
        self.revised["energy gap"] = gap.detach()
        self.note("train/energy_gap", gap)
        return gap / self.temperature if self.scale_energy else gap

    def generator_loss(self, made: Revision) -> Tensor:
        """``-log p(x | z~) - S log p(x~ | z)``, each a mean over the batch."""
        nll = -self.likelihood.log_prob(made.x, made.revised_z).mean()
        self.note("train/nll_given_z", nll)
        total = self._scaled(nll, made.x)
        if self.teaching_weight:
            taught = -self.likelihood.log_prob_around(made.revised, made.generated).mean()
            self.note("teaching/generator", taught)
            total = total + self.teaching_weight * self._scaled(taught, made.x)
        return total

    def _scaled(self, nll: Tensor, x: Tensor) -> Tensor:
        return nll if self.scale_likelihood else self.likelihood.squared_error(nll, x[0].numel())

    def encoder_loss(self, made: Revision) -> Tensor:
        """``-log q(z~ | x) - lambda log q(z | x~)``, each a mean over the batch."""
        total = -made.inferred.log_prob(made.revised_z).mean()
        self.note("train/inference_nll", total)
        if self.revised_inference_weight:
            on_revised = -self.encoder(made.revised).log_prob(made.z).mean()
            self.note("teaching/encoder", on_revised)
            total = total + self.revised_inference_weight * on_revised
        return total

    # The chains

    # They move in the model's own precision. Autocast hands over half precision, in which steps as small as
    # these are rounded away.

    def _revise_images(self, generated: Tensor, noise: RandomSource, steps: int | None = None) -> Tensor:
        start = start_of_images(self.image_start, generated.to(self.dtype), self.likelihood.sigma, noise)
        with frozen(self.energy):
            target = Boltzmann(self.energy, self.temperature)
            return self.follow("image", self.image_sampler, target, start, noise, steps)

    def _revise_latents(
        self, x: Tensor, inferred: DiagonalGaussian, noise: RandomSource, steps: int | None = None
    ) -> Tensor:
        start = start_of_latents(self.latent_start, inferred, noise).to(self.dtype)
        with frozen(self.likelihood, batch_statistics=self.batch_statistics):
            return self.follow("posterior", self.posterior_sampler, self.posterior(x), start, noise, steps)

    def posterior(self, x: Tensor) -> LogDensity:
        """Unnormalised ``log p(z | x)`` of the generator as a function of ``z``."""
        return lambda z: self.likelihood.log_prob(x, z) - 0.5 * z.square().sum(dim=1)

    # The answers

    def inferred(self, x: Tensor) -> DiagonalGaussian:
        return self.encoder(x)

    def revise(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Observations ``(B, *event)`` after the energy's chain, which starts at ``x``, or as ``image_start`` says."""
        with torch.inference_mode(False), frozen(self.image_sampler):  # a pool is left alone
            return self._revise_images(x.clone(), generator, steps)

    def posterior_chain(self, x: Tensor, generator: RandomSource = None) -> ModelChain:
        start = start_of_latents(self.latent_start, self.encoder(x), generator).to(self.dtype)
        return ModelChain(self.posterior(x), self.posterior_sampler, start)

    def sample_latent(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Exact draws of N(0, I); there is no chain to set ``steps`` of."""
        anchor = next(self.likelihood.parameters())
        return normal(generator, (n, self.latent_dim), dtype=anchor.dtype, device=anchor.device)

    def sample(self, n: int, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``n`` images from the energy's chain; with ``steps=0`` those of the generator alone."""
        with torch.inference_mode(False):
            generated = self.decode(self.sample_latent(n, generator=generator))
            if steps == 0:
                return generated
            with frozen(self.image_sampler):  # a pool is left alone
                return self._revise_images(generated, generator, steps)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """A draw of the inference model, revised by the posterior chain; with ``steps=0`` the draw alone."""
        with torch.inference_mode(False), torch.no_grad(), frozen(self.posterior_sampler):
            x = x.clone()  # an inference tensor could not take part in the chain's gradient
            steps = self.evaluation_steps if steps is None else steps
            return self._revise_latents(x, self.encoder(x), generator, steps)

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad(), frozen(self.likelihood, batch_statistics=self.batch_statistics):
            return self.likelihood.mean(z)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x, z)`` of the generator model, normalised."""
        with torch.no_grad():
            log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)
            return self.likelihood.log_prob_around(x, self.decode(z)) + log_prior

    def anomaly_score(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``E(x) / T``, which is ``-log pi(x)`` up to a constant, shape ``(B,)``; there is no chain to set
        ``steps`` of.
        """
        with torch.no_grad(), frozen(self.energy):
            return self.energy(x).to(x.dtype) / self.temperature

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        outputs = super().validation_step(batch, batch_idx)
        return {**outputs, "anomaly_score": self.anomaly_score(outputs["x"])}

    @property
    def chain_settings(self) -> dict[str, Any]:
        return super().chain_settings | {
            name: getattr(self, name)
            for name in ("temperature", "image_start", "latent_start", "batch_statistics")
        }

    # Two steps per batch

    def on_fit_start(self) -> None:
        self.turns.check(self.trainer.accumulate_grad_batches)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One step per turn: the closure computes the loss of the turn in which it is called."""
        for _ in self.turns.of_batch():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.turns.rest(self.networks())
