"""An energy on images, a generator and an inference model, each taught by the others' revised samples (paper
4).

    L = E(x) - E(x~) - log p(x | z~) - S log p(x~ | z) - log q(z~ | x) - lambda log q(z | x~),
    x~ the end of a chain on exp(-E(x) / T) from g(z),  z~ the end of a chain on p(z | x) from q(z | x)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lebm.errors import UserError
from lebm.estimators.latent_model import contrast
from lebm.estimators.optim import AdamGroups
from lebm.estimators.revised_model import ImageStart, RevisedModel, Revision, are_revisions, check_starts
from lebm.models.encoders import GaussianEncoder
from lebm.models.energies import Energy
from lebm.models.likelihoods import GaussianLikelihood
from lebm.samplers.base import Sampler

__all__ = ["DualMCMCTeaching", "Schedule", "Turns", "touch"]

Schedule = Literal["simultaneous", "alternate"]


class Turns:
    """The optimiser steps of one batch.

    Args:
        schedule: ``"simultaneous"``, one step for all networks; or ``"alternate"``, a step for generator and
            inference model, then one for the energy.

    Attributes:
        energy: whether the energy learns in the present step.
        teachers: whether generator and inference model learn in the present step.
        earlier: loss of the earlier steps of this batch, detached. It is added to the last one, so that the
            logged loss is that of the batch.

    Raises:
        ValueError: for another schedule.
    """

    def __init__(self, schedule: Schedule) -> None:
        if schedule not in ("simultaneous", "alternate"):
            raise ValueError(f"schedule must be simultaneous or alternate, not {schedule!r}")
        self.alternate = schedule == "alternate"
        self.energy = self.teachers = True
        self.earlier: Tensor | float = 0.0

    def check(self, accumulated: int) -> None:
        """Refuse gradient accumulation where a batch takes two steps.

        Raises:
            UserError: naming both ways out.
        """
        if self.alternate and accumulated > 1:
            raise UserError(
                "schedule alternate takes two steps a batch and cannot accumulate: use a larger batch, or"
                " simultaneous"
            )

    def of_batch(self) -> Iterator[None]:
        """Go through the turns of a batch; all networks learn outside the loop."""
        for teachers, energy in ((True, False), (False, True)) if self.alternate else ((True, True),):
            self.teachers, self.energy = teachers, energy
            yield
        self.teachers = self.energy = True
        self.earlier = 0.0

    def rest(self, networks: Mapping[str, nn.Module]) -> None:
        """Remove the gradients of networks whose turn it is not.

        A zero gradient would still move them, by Adam's moments and weight decay.
        """
        for name, network in networks.items():
            if not (self.energy if name == "energy" else self.teachers):
                network.zero_grad(set_to_none=True)


def touch(*networks: nn.Module) -> Tensor:
    """Zero, with a zero gradient for every parameter: data-parallel wrappers wait for all of them."""
    return sum(
        (0.0 * parameter.sum() for network in networks for parameter in network.parameters()),
        start=torch.zeros(()),
    )


class DualMCMCTeaching(RevisedModel):
    r"""Cui, Han: *Learning Energy-based Model via Dual-MCMC Teaching*, NeurIPS 2023.

    There are three models: an energy with density :math:`\pi(x) \propto \exp(-E(x) / T)`, a generator
    :math:`p(x, z) = N(z; 0, I)\, N(x; g(z), \sigma^2 I)`, and an inference model :math:`q(z \mid x)`. A chain
    on :math:`\pi` revises the generator's image ``g(z)`` into :math:`\tilde x`. A chain on
    :math:`p(z \mid x)` revises a draw of :math:`q` into :math:`\tilde z`. Both are detached. One loss then
    gives each network the gradient of its own objective:

    .. math:: L = E(x) - E(\tilde x) - \log p(x \mid \tilde z) - S \log p(\tilde x \mid z)
              - \log q(\tilde z \mid x) - \lambda \log q(z \mid \tilde x).

    ``sample`` starts the energy's chain at the generator's images; ``steps=0`` gives these images. ``encode``
    starts the posterior chain at a draw of the inference model; ``steps=0`` gives that draw. ``log_joint`` is
    the generator's, and ``anomaly_score`` is :math:`E(x) / T`, up to a constant.

    Args:
        energy: the energy on observations, ``(B, *event) -> (B,)``.
        likelihood: ``p(x | z)``, with the generator inside.
        encoder: the inference model.
        image_sampler: chain on the energy's density. Plain Langevin with step n at temperature T is the
            released chain with drift step s and noise scale n, if ``T = (n / s)^2``.
        posterior_sampler: chain on ``p(z | x)``.
        optimizer: learning rates of ``energy``, ``generator`` and ``encoder``.
        temperature: the T above, positive; ``(n / s)^2`` of the released chain is 4e-6 for CIFAR-10.
        teaching_weight: S, the weight of revised images in the generator's loss; 1 in the theory, 50 and 70
            in the releases.
        revised_inference_weight: lambda, the weight of revised images in the inference model's loss; 1 in the
            theory, 0.1 in the releases.
        schedule: ``"simultaneous"``, one optimiser step per batch; or ``"alternate"``, two, as in the final
            release: generator and inference model first, then the energy, on new chains that start at the new
            generator's images of the same ``z``.
        image_start: where image chains start: ``"generator"``, at ``g(z)`` (released); ``"likelihood"``, at a
            draw of ``p(x | z)`` (theory); ``"noise"``, at uniform noise in [-1, 1] (baseline).
        batch_statistics: BatchNorm inside chains uses the statistics of the batch, as released, and not the
            running ones. The chains of a batch then depend on each other. No chain changes the running ones.
        **shared: the arguments of :class:`~lebm.estimators.LatentModel` but ``optimizer``.

    Attributes:
        revised: images and latents of the last training step before and after their chains, detached.

    Raises:
        ValueError: if networks disagree on the latent size, an argument is out of range, or revised images
            are to teach although they are not revisions of the generator's images.

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
        batch_statistics: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(optimizer, **shared)
        self.energy = energy
        self.likelihood = likelihood
        self.encoder = encoder
        self.image_sampler = image_sampler
        self.posterior_sampler = posterior_sampler
        self.temperature = temperature
        self.teaching_weight, self.revised_inference_weight = teaching_weight, revised_inference_weight
        self.image_start = image_start
        self.batch_statistics = batch_statistics
        self.latent_dim = likelihood.latent_dim
        self.revised: dict[str, Tensor] = {}
        self.schedule = schedule
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
        check_starts(self.image_start, self.posterior_sampler)
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
        revised = self.revise_images(self.decode(z), self.noise("image again", batch_idx))
        self.revised["revised images"] = revised
        return self.energy_loss(x, revised) + touch(self.likelihood, self.encoder) + self.turns.earlier

    def _revise(self, x: Tensor, z: Tensor, batch_idx: int) -> Revision:
        generated = self.likelihood.mean(z)
        revised = generated.detach()
        if self.turns.energy or self._teaches:
            revised = self.revise_images(revised, self.noise("image", batch_idx))
        data = self.inference.infer(x, None, self.latent_chain(x), self.noise("posterior", batch_idx))
        assert data.teaching is not None
        self.revised = {
            "generated images": generated.detach(),
            "revised images": revised,
            "revised latents": data.z,
        }
        return Revision(x, z, generated, revised, data.z, data.teaching)

    def energy_loss(self, x: Tensor, revised: Tensor) -> Tensor:
        """``E(x) - E(x~)``, without the released factor 1 / T, which Adam cancels."""
        gap = contrast(self.energy, x, revised)
        self.revised["energy gap"] = gap.detach()
        self.note("train/energy_gap", gap)
        return gap

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
        total = made.teaching
        self.note("train/inference_nll", total)
        if self.revised_inference_weight:
            on_revised = -self.encoder(made.revised).log_prob(made.z).mean()
            self.note("teaching/encoder", on_revised)
            total = total + self.revised_inference_weight * on_revised
        return total

    @classmethod
    def from_former(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Today's arguments for those of a checkpoint that names what every model does now."""
        fixed = {"scale_energy": False, "latent_start": "encoder"}
        arguments = super().from_former(arguments)
        return {name: value for name, value in arguments.items() if name not in fixed or value != fixed[name]}

    # Two steps per batch

    def on_fit_start(self) -> None:
        self.turns.check(self.trainer.accumulate_grad_batches)

    def updates(self) -> Iterator[None]:
        """One optimiser step per turn of the schedule."""
        return self.turns.of_batch()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.turns.rest(self.networks())
