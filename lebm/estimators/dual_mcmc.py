"""Dual-MCMC teaching: an energy on images, a generator and an inference model (paper 4).

L = E(x) - E(x~) - log p(x | z~) - S log p(x~ | z) - log q(z~ | x) - lambda log q(z | x~),
x~ the end of a chain on exp(-E(x) / T) from g(z),  z~ the end of a chain on p(z | x) from q(z | x)
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel, both_energies
from lebm.estimators.optim import AdamGroups
from lebm.models.adapters import ModuleEncoder
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.models.energies import Energy, ModuleEnergy
from lebm.models.frozen import frozen
from lebm.models.layers import check_choice, check_sizes
from lebm.models.likelihoods import GaussianLikelihood
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import PersistentChains
from lebm.samplers.noise import RandomSource, normal
from lebm.samplers.targets import Boltzmann

LEARNING: dict[str, tuple[tuple[str, ...], ...]] = {
    "simultaneous": (("energy", "generator", "encoder"),),
    "alternate": (("generator", "encoder"), ("energy",)),
}
"""Networks that learn in each optimiser step of a batch, by schedule."""


class DualMCMCTeaching(LatentModel):
    r"""Cui, Han: *Learning Energy-based Model via Dual-MCMC Teaching*, NeurIPS 2023.

    There are three models: an energy with density :math:`\pi(x) \propto \exp(-E(x) / T)`, a generator
    :math:`p(x, z) = N(z; 0, I)\, N(x; g(z), \sigma^2 I)`, and an inference model :math:`q(z \mid x)`. A chain
    on :math:`\pi` revises the generator's image ``g(z)`` into :math:`\tilde x`. A chain on
    :math:`p(z \mid x)` revises a sample of :math:`q` into :math:`\tilde z`. Both are detached, so one loss
    gives each network the gradient of its own objective:

    .. math:: L = E(x) - E(\tilde x) - \log p(x \mid \tilde z) - S \log p(\tilde x \mid z)
              - \log q(\tilde z \mid x) - \lambda \log q(z \mid \tilde x).

    ``sample`` starts the energy's chain at the generator's images, and ``encode`` the posterior chain at a
    sample of the inference model; ``steps=0`` returns these starts. A condition acts on the latents only, not
    on the energy's chain. ``log_joint`` belongs to the generator, and ``anomaly_score`` is :math:`E(x) / T`,
    up to a constant.

    Args:
        energy: the energy on observations, ``(B, *event) -> (B,)``.
        likelihood: ``p(x | z)``, with the generator inside.
        encoder: the inference model.
        image_sampler: chain for the energy's density. Plain Langevin with step n at temperature T is the
            released chain with drift step s and noise scale n, if ``T = (n / s)^2``.
        posterior_sampler: chain for ``p(z | x)``.
        optimizer: optimiser settings of ``energy``, ``generator`` and ``encoder``.
        temperature: the T above, positive; ``(n / s)^2`` of the released chain is 4e-6 for CIFAR-10.
        teaching_weight: S, the weight of revised images in the generator's loss; 1 in the theory, 50 and 70
            in the releases.
        revised_inference_weight: lambda, the weight of revised images in the inference model's loss; 1 in the
            theory, 0.1 in the releases.
        schedule: ``"simultaneous"``, one optimiser step per batch; or ``"alternate"``, two steps as in the
            final release: generator and inference model first, then the energy, on new chains from the
            updated generator's images of the same ``z``.
        batch_statistics: whether BatchNorm uses the statistics of the batch inside chains, as released,
            instead of the running statistics. The chains of a batch then depend on each other.
        **shared: other arguments of :class:`~lebm.estimators.LatentModel`.

    Attributes:
        revised: images and latents of the last training step before and after their chains, detached.

    Raises:
        ValueError: if networks disagree on the latent size, an argument is out of range, or a teaching weight
            is positive although the image chains persist.

    Example:
        >>> from lebm.estimators import DualMCMCTeaching
        >>> from lebm.estimators import AdamGroups
        >>> from lebm.models import ConvEncoder, ConvGenerator, GaussianLikelihood, ResNetEnergy
        >>> from lebm.samplers import Langevin
        >>> model = DualMCMCTeaching(
        ...     energy=ResNetEnergy([1, 8, 8], channels=[4]),
        ...     likelihood=GaussianLikelihood(ConvGenerator(2, [1, 8, 8], channels=[4], start=4), sigma=0.3),
        ...     encoder=ConvEncoder(2, [1, 8, 8], channels=[4], end=8),
        ...     image_sampler=Langevin(5, 1e-3, clamp=(-1.0, 1.0)),
        ...     posterior_sampler=Langevin(5, 0.1),
        ...     optimizer=AdamGroups({"energy": 1e-4, "generator": 1e-3, "encoder": 1e-3}),
        ... )
        >>> model.sample(3).shape, model.sample(3, steps=0).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
    """

    likelihood: GaussianLikelihood
    anomaly_score_name = "E(x) / T of the energy on images"
    former = {
        "scale_energy": False,
        "latent_start": "encoder",
        "image_start": "generator",
        "noise_source": "streams",
    }

    def __init__(
        self,
        energy: Energy | nn.Module,
        likelihood: GaussianLikelihood,
        encoder: GaussianEncoder | nn.Module,
        image_sampler: Sampler,
        posterior_sampler: Sampler,
        optimizer: AdamGroups,
        temperature: float = 1.0,
        teaching_weight: float = 1.0,
        revised_inference_weight: float = 1.0,
        schedule: Literal["simultaneous", "alternate"] = "simultaneous",
        batch_statistics: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(likelihood, optimizer, **shared)
        self.energy = energy if isinstance(energy, Energy) else ModuleEnergy(energy)
        if not isinstance(encoder, GaussianEncoder):
            encoder = ModuleEncoder(encoder, self.latent_dim)
        self.encoder = encoder
        self.image_sampler = image_sampler
        self.posterior_sampler = posterior_sampler
        self.temperature = temperature
        self.teaching_weight, self.revised_inference_weight = teaching_weight, revised_inference_weight
        self.batch_statistics = batch_statistics
        self.revised: dict[str, Tensor] = {}
        check_choice("schedule", schedule, tuple(LEARNING))
        self.schedule = schedule
        self.learning = LEARNING["simultaneous"][0]
        self._earlier: Tensor | float = 0.0  # loss of the earlier steps of this batch, for the logs
        # Whether generator or inference model learn from revised images.
        self._teaches = bool(teaching_weight or revised_inference_weight)
        check_sizes("the generator takes", self.latent_dim, "the encoder gives", encoder.latent_dim)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if isinstance(posterior_sampler, PersistentChains):
            raise ValueError(
                "posterior chains belong to the images of one batch and cannot persist:"
                " posterior_sampler must not be a pool"
            )
        if self._teaches and isinstance(image_sampler, PersistentChains):
            raise ValueError(
                "images whose chains persist are not revisions of g(z), so they cannot teach: set"
                " teaching_weight and revised_inference_weight to 0"
            )
        optimizer.check(self.networks())

    def networks(self) -> Mapping[str, nn.Module]:
        return {"energy": self.energy, "generator": self.likelihood, "encoder": self.encoder}

    # The loss

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the terms of the networks that learn in the current step."""
        x = self.observations(batch)
        z = self.noise("latents", batch_idx).normal((len(x), self.latent_dim), dtype=x.dtype, device=x.device)
        if "generator" not in self.learning:  # new chains from the updated generator's images of the same z
            again = self.revise_images(self.decode(z), self.noise("image again", batch_idx))
            return self.energy_loss(x, again) + self._earlier
        generated, q = self.likelihood.mean(z), self.encoder(x)
        images, latents = self.chains(x, q, generated.detach(), batch_idx)
        total = self.generator_loss(x, latents, images, generated) + self.encoder_loss(q, latents, images, z)
        self._earlier = total.detach()
        return total + self.energy_loss(x, images) if "energy" in self.learning else total

    def chains(self, x: Tensor, q: DiagonalGaussian, start: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return ``x~`` and ``z~``, the ends of chains from ``start``, images, and from a sample of ``q``."""
        images, noise = start, self.noise("posterior", batch_idx)
        if "energy" in self.learning or self._teaches:
            images = self.revise_images(start, self.noise("image", batch_idx))
        latents = self.revise_latents(x, q.rsample(noise).detach(), noise)
        self.revised = {"generated images": start, "revised images": images, "revised latents": latents}
        return images, latents

    def energy_loss(self, x: Tensor, revised: Tensor) -> Tensor:
        """Return ``E(x) - E(x~)``, without the released factor 1 / T, which Adam cancels."""
        up, down = both_energies(self.energy, x, revised)
        gap = up.mean() - down.mean()
        self.revised |= {"revised images": revised, "energy gap": gap.detach()}
        self.note("train/energy_gap", gap)
        return gap

    def generator_loss(self, x: Tensor, revised_z: Tensor, revised: Tensor, generated: Tensor) -> Tensor:
        """Return ``-log p(x | z~) - S log p(x~ | z)``, means over the batch; ``generated`` is ``g(z)``."""
        nll = -self.likelihood.log_prob(x, revised_z).mean()
        self.note("train/nll_given_z", nll)
        total = self.scaled(nll, x)
        if self.teaching_weight:
            taught = -self.likelihood.log_prob_around(revised, generated).mean()
            self.note("teaching/generator", taught)
            total = total + self.teaching_weight * self.scaled(taught, x)
        return total

    def encoder_loss(self, q: DiagonalGaussian, revised_z: Tensor, revised: Tensor, z: Tensor) -> Tensor:
        """Return ``-log q(z~ | x) - lambda log q(z | x~)``, means over the batch; ``q`` is ``q(. | x)``."""
        total = -q.log_prob(revised_z).mean()
        self.note("train/inference_nll", total)
        if self.revised_inference_weight:
            on_revised = -self.encoder(revised).log_prob(z).mean()
            self.note("teaching/encoder", on_revised)
            total = total + self.revised_inference_weight * on_revised
        return total

    # Two steps per batch

    def on_fit_start(self) -> None:
        if self.schedule == "alternate" and self.trainer.accumulate_grad_batches > 1:
            raise UserError(
                "schedule alternate takes two steps a batch and cannot accumulate: use a larger batch, or"
                " simultaneous"
            )

    def updates(self) -> Iterator[None]:
        """Iterate over the optimiser steps of the schedule; outside the loop all networks learn."""
        for learning in LEARNING[self.schedule]:
            self.learning = learning
            yield
        self.learning, self._earlier = LEARNING["simultaneous"][0], 0.0

    @property
    def idle_networks(self) -> list[nn.Module]:
        """Networks that do not learn in the current step."""
        return [network for name, network in self.networks().items() if name not in self.learning]

    # Chains, in the model's own precision, because half precision rounds small steps away, and queries

    def revise_images(
        self, generated: Tensor, noise: RandomSource = None, steps: int | None = None
    ) -> Tensor:
        """Return the ends of image chains from generated images ``(B, *event)``, detached.

        Args:
            generated: images in [-1, 1], from this model's generator or from another model.
            noise: source of randomness.
            steps: length of the chain; the length of ``image_sampler`` if ``None``.
        """
        with frozen(self.energy):
            target = Boltzmann(self.energy, self.temperature)
            return self.follow("image", self.image_sampler, target, generated.to(self.dtype), noise, steps)

    def revise_latents(
        self, x: Tensor, z: Tensor, noise: RandomSource = None, steps: int | None = None
    ) -> Tensor:
        """Return the ends of posterior chains of ``x: (B, *event)`` from ``z: (B, latent_dim)``, detached."""
        with frozen(self.likelihood, batch_statistics=self.batch_statistics):
            target = self.posterior(x)
            return self.follow("posterior", self.posterior_sampler, target, z.to(self.dtype), noise, steps)

    def posterior(self, x: Tensor) -> LogDensity:
        """Return ``log p(x, z)`` of the generator as a function of ``z``."""
        constant = 0.5 * self.latent_dim * math.log(2 * math.pi)
        return lambda z: self.likelihood.log_prob(x, z) - 0.5 * z.square().sum(dim=1) - constant

    def revise(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Return observations ``(B, *event)`` after the energy's chain from ``x``."""
        with torch.inference_mode(False), frozen(self.image_sampler):  # a pool does not change
            return self.revise_images(x.clone(), generator, steps)

    def prior_latents(self, n: int, steps: int | None, generator: RandomSource) -> Tensor:
        """Draw ``n`` latents ``(n, latent_dim)`` from N(0, I), without a chain."""
        anchor = next(self.likelihood.parameters())
        return normal(generator, (n, self.latent_dim), dtype=anchor.dtype, device=anchor.device)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Draw latents from the inference model and run the posterior chain from them."""
        with torch.inference_mode(False), torch.no_grad(), frozen(self.posterior_sampler, self.encoder):
            x = x.clone()  # inference tensors have no gradients
            steps = self.evaluation_steps if steps is None else steps
            return self.revise_latents(x, self.encoder(x).rsample(generator), generator, steps)

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad(), frozen(self.likelihood, batch_statistics=self.batch_statistics):
            return self.likelihood.mean(z)

    def observe(self, z: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Return the generator's images after the energy's chain; unchanged with ``steps=0``."""
        with torch.inference_mode(False):
            generated = self.decode(z)
            return generated if steps == 0 else self.revise(generated, steps=steps, generator=generator)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the normalised ``log p(x, z)`` of the generator model, ``(B,)``."""
        with torch.no_grad(), frozen(self.likelihood, batch_statistics=self.batch_statistics):
            return self.posterior(x)(z)

    def anomaly_score(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Return ``E(x) / T``, which is ``-log pi(x)`` up to a constant, ``(B,)``, without a chain."""
        return self.score_at(x, x)

    def score_at(self, x: Tensor, z: Tensor) -> Tensor:
        """Return ``E(x) / T``, ``(B,)``; the latents are not used."""
        with torch.no_grad(), frozen(self.energy):
            return self.energy(x).to(x.dtype) / self.temperature

    @property
    def chain_settings(self) -> dict[str, Any]:
        own = {"temperature": self.temperature, "batch_statistics": self.batch_statistics}
        return super().chain_settings | own
