"""A generator, an inference model and an energy on observations: their chains and answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lebm.conditions import Given
from lebm.estimators.latent_model import LatentModel, ModelChain
from lebm.inference import PosteriorChain, Taught
from lebm.models.chain_space import check_choice
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.models.energies import Energy
from lebm.models.frozen import frozen
from lebm.models.likelihoods import GaussianLikelihood
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import PersistentChains
from lebm.samplers.noise import RandomSource, normal, uniform
from lebm.samplers.targets import Boltzmann

__all__ = ["ImageStart", "RevisedModel", "Revision", "are_revisions", "check_starts", "start_of_images"]

ImageStart = Literal["generator", "likelihood", "noise"]


def start_of_images(kind: ImageStart, generated: Tensor, sigma: float, noise: RandomSource) -> Tensor:
    """The generator's images ``(B, *event)``, a draw of ``N(., sigma^2 I)`` around them, or uniform noise in
    [-1, 1].
    """
    place: dict[str, Any] = {"dtype": generated.dtype, "device": generated.device}
    if kind == "noise":
        return 2 * uniform(noise, generated.shape, **place) - 1
    if kind == "likelihood":
        return generated + sigma * normal(noise, generated.shape, **place)
    return generated


def are_revisions(kind: ImageStart, sampler: Sampler) -> bool:
    """Whether the chain's images belong to the latents of this batch."""
    return kind != "noise" and not isinstance(sampler, PersistentChains)


def check_starts(images: ImageStart, posterior_sampler: Sampler) -> None:
    """Validate where the chains start.

    Raises:
        ValueError: naming the argument.
    """
    check_choice("image_start", images, ("generator", "likelihood", "noise"))
    if isinstance(posterior_sampler, PersistentChains):
        raise ValueError(
            "posterior chains belong to the images of one batch and cannot persist: posterior_sampler must"
            " not be a pool"
        )


@dataclass(frozen=True)
class Revision:
    """What the two chains made of one batch.

    Attributes:
        x: data, ``(B, *event)``.
        z: draws of N(0, I), ``(B, latent_dim)``.
        generated: ``g(z)``, with its gradient.
        revised: ``x~``, the end of the image chain, detached.
        revised_z: ``z~``, the end of the posterior chain, detached.
        teaching: ``-log q(z~ | x)``, mean over the batch, with its gradient.
    """

    x: Tensor
    z: Tensor
    generated: Tensor
    revised: Tensor
    revised_z: Tensor
    teaching: Tensor


class RevisedModel(LatentModel):
    """Three models whose draws are revised by chains; a method sets the attributes and adds its loss.

    Attributes:
        energy: on observations, ``(B, *event) -> (B,)``; its density is ``exp(-E(x) / temperature)``.
        likelihood: ``p(x | z)``, with the generator inside.
        encoder: ``q(z | x)``.
        image_sampler: chain on the energy's density.
        posterior_sampler: chain on ``p(z | x)``.
        revised: images and latents of the last training step before and after their chains, detached.
    """

    energy: Energy
    likelihood: GaussianLikelihood
    encoder: GaussianEncoder
    image_sampler: Sampler
    posterior_sampler: Sampler
    temperature: float
    image_start: ImageStart
    batch_statistics: bool
    revised: dict[str, Tensor]
    anomaly_score_name = "E(x) / T of the energy on images"

    # The chains move in the model's own precision. Autocast hands over half precision, which rounds steps of
    # this size away.

    def revise_images(
        self, generated: Tensor, noise: RandomSource = None, steps: int | None = None
    ) -> Tensor:
        """The ends of image chains for generated images ``(B, *event)``, detached.

        Args:
            generated: images in [-1, 1], of this model's generator or of another model.
            noise: source of randomness.
            steps: length of the chain; that of ``image_sampler`` if ``None``.
        """
        start = start_of_images(self.image_start, generated.to(self.dtype), self.likelihood.sigma, noise)
        with frozen(self.energy):
            target = Boltzmann(self.energy, self.temperature)
            return self.follow("image", self.image_sampler, target, start, noise, steps)

    @property
    def inference(self) -> Taught:
        """The part that infers latents: the encoder, which learns the ends of the posterior chains."""
        return Taught(self.encoder)

    def latent_chain(self, x: Tensor, steps: int | None = None) -> PosteriorChain:
        """The posterior chains of ``x: (B, *event)``."""

        def reference(noise: RandomSource) -> Tensor:
            return self.sample_latent(len(x), generator=noise)

        def run(start: Tensor | None, noise: RandomSource) -> Tensor:
            begin = (reference(noise) if start is None else start).to(self.dtype)
            with frozen(self.likelihood, batch_statistics=self.batch_statistics):
                return self.follow(
                    "posterior", self.posterior_sampler, self.posterior(x), begin, noise, steps
                )

        return PosteriorChain(run, reference)

    def posterior(self, x: Tensor) -> LogDensity:
        """``log p(x, z)`` of the generator as a function of ``z``."""
        constant = 0.5 * self.latent_dim * math.log(2 * math.pi)
        return lambda z: self.likelihood.log_prob(x, z) - 0.5 * z.square().sum(dim=1) - constant

    # The answers

    def inferred(self, x: Tensor) -> DiagonalGaussian:
        return self.encoder(x)

    def revise(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Observations ``(B, *event)`` after the energy's chain from ``x``."""
        with torch.inference_mode(False), frozen(self.image_sampler):  # a pool is left alone
            return self.revise_images(x.clone(), generator, steps)

    def posterior_chain(self, x: Tensor, generator: RandomSource = None) -> ModelChain:
        """From draws of N(0, I) and not of the encoder: chains are compared that start far apart."""
        return ModelChain(
            self.posterior(x), self.posterior_sampler, self.sample_latent(len(x), generator=generator)
        )

    def sample_latent(
        self, n: int, *, steps: int | None = None, generator: RandomSource = None, given: Given | None = None
    ) -> Tensor:
        """Exact draws of N(0, I), ``(n, latent_dim)``, or draws ``given`` a condition. They need no
        ``steps``.
        """
        if given is not None:
            return self.sample_given(n, given, generator=generator).z
        anchor = next(self.likelihood.parameters())
        return normal(generator, (n, self.latent_dim), dtype=anchor.dtype, device=anchor.device)

    def sample(
        self, n: int, *, steps: int | None = None, generator: RandomSource = None, given: Given | None = None
    ) -> Tensor:
        """``n`` images from the energy's chain; with ``steps=0`` those of the generator alone.

        A condition is one on the latents, and the energy's chain does not know it.
        """
        with torch.inference_mode(False):
            z = self.sample_latent(n, generator=generator, given=given)
            return self.observe(z, steps=steps, generator=generator)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """A draw of the inference model, revised by the posterior chain; with ``steps=0`` the draw alone."""
        with torch.inference_mode(False), torch.no_grad(), frozen(self.posterior_sampler):
            x = x.clone()  # an inference tensor could not take part in the chain's gradient
            steps = self.evaluation_steps if steps is None else steps
            return self.latent_chain(x, steps).run(self.inference.start(x, generator), generator)

    def decode(self, z: Tensor) -> Tensor:
        with torch.no_grad(), frozen(self.likelihood, batch_statistics=self.batch_statistics):
            return self.likelihood.mean(z)

    def observe(self, z: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """The generator's images after the energy's chain; with ``steps=0`` as they are."""
        with torch.inference_mode(False):
            generated = self.decode(z)
            return generated if steps == 0 else self.revise(generated, steps=steps, generator=generator)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x, z)`` of the generator model, normalised."""
        with torch.no_grad():
            log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)
            return self.likelihood.log_prob_around(x, self.decode(z)) + log_prior

    def anomaly_score(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """``E(x) / T``, which is ``-log pi(x)`` up to a constant, ``(B,)``; no chain is needed."""
        with torch.no_grad(), frozen(self.energy):
            return self.energy(x).to(x.dtype) / self.temperature

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        outputs = super().validation_step(batch, batch_idx)
        return {**outputs, "anomaly_score": self.anomaly_score(outputs["x"])}

    @property
    def chain_settings(self) -> dict[str, Any]:
        return super().chain_settings | {
            name: getattr(self, name) for name in ("temperature", "image_start", "batch_statistics")
        }
