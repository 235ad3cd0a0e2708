"""What the methods of papers 1 to 3 share in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lebm.errors import UserError, UserNotice
from lebm.estimators.base import contrast
from lebm.estimators.prior_chains import PriorChains
from lebm.estimators.stage_end import renew_averages
from lebm.inference import Inferred, PosteriorChain, Variational
from lebm.models.frozen import frozen
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["LatentPriorModel"]


class LatentPriorModel(PriorChains):
    """The networks that train and the terms of a loss; a method adds them up.

    See :class:`PriorChains` for the arguments. ``optimizer`` needs a learning rate for each of
    :meth:`networks`.
    """

    def networks(self) -> Mapping[str, nn.Module]:
        parts = {
            "generator": self.likelihood,
            "encoder": self.inference.encoder,
            "energy": getattr(self.prior, "tilt", None),
            "reference": self.reference,
        }
        return {name: part for name, part in parts.items() if part is not None and _trains(part)}

    @property
    def trains_reference(self) -> bool:
        """Whether the reference has networks that learn."""
        return _trains(self.reference)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.frozen_parts.eval()
        return self

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.frozen_parts.load()

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:
            self.frozen_parts.check()
        steps, rule = self.trainer.estimated_stepping_batches, self.fit_base
        if rule is not None and rule.at[-1] >= steps > 0 and self.trainer.is_global_zero:
            warnings.warn(
                f"fit_base.at {rule.at[-1]}: this run has {steps:g} steps, so the energy never learns;"
                " lower fit_base.at or train longer",
                UserNotice,
                stacklevel=2,
            )

    # The fit of the base

    @property
    def idle_networks(self) -> list[nn.Module]:
        """The networks that do not learn now: an energy before the fit, or all others after it."""
        if self.fit_base is None:
            return []
        waits = self.fit_base.pending
        return [
            part
            for name, part in self.networks().items()
            if (waits if name == "energy" else self.fit_base.only_energy)
        ]

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        for network in self.idle_networks:  # processes that exchange gradients expect one for every parameter
            loss = loss + 0.0 * sum(p.sum() for p in network.parameters() if p.requires_grad)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of idle networks: no weight decay or momentum moves them."""
        for network in self.idle_networks:
            for parameter in network.parameters():
                parameter.grad = None

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take the step, then decide: inside the step, so that a checkpoint made after it has seen the
        decision.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.after_step(getattr(optimizer, "optimizer", optimizer))

    def after_step(self, optimizer: torch.optim.Optimizer) -> Any:
        """Count a step, and fit the base if it is due."""
        latents = None if self.fit_base is None else self.fit_base.step()
        if self.fit_base is None or latents is None:
            return
        seed = Noise([(self.seed, "base", self.fit_base.steps)]).seeds[0]
        cards = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cards), torch.enable_grad():
            torch.manual_seed(seed)  # for a fit that draws from torch's own generator
            self.reference.requires_grad_(True)
            try:
                self.reference.fit(latents.to(self.device), torch.Generator(self.device).manual_seed(seed))
            except ValueError as error:
                raise UserError(f"fit_base: no fit after step {self.fit_base.steps}: {error}") from error
            self.reference.requires_grad_(False)
        if self._trainer is not None:
            # On a GPU the same fit may end elsewhere in another process.
            self.reference.load_state_dict(self.trainer.strategy.broadcast(self.reference.state_dict()))
            renew_averages(self.trainer, self, ["prior", "fit_base"])

    # For the loss

    def infer(self, x: Tensor, batch: Mapping[str, Tensor], batch_idx: int) -> Inferred:
        """``z+``: latents ``(B, latent_dim)`` of ``x: (B, *event)``, the :meth:`observations` of a batch."""
        target = self.posterior_target(x)

        def run(start: Tensor | None, noise: RandomSource) -> Tensor:
            return self.run_chain("posterior", self.posterior_sampler, target, len(x), noise, start)

        def reference(noise: RandomSource) -> Tensor:
            return self._latents(self.chain_start(len(x), noise))

        index = batch.get("index")
        if index is not None and "flipped" in batch:  # the mirror image of a row has another posterior
            index = 2 * index + batch["flipped"].to(index)
        noise = self.noise("posterior", batch_idx)
        chain = PosteriorChain(run, reference)
        if self.fit_base is not None and self.fit_base.only_energy:
            with torch.no_grad(), frozen(self.likelihood, self.inference):
                return Inferred(self.inference.infer(x, index, chain, noise).z)
        inferred = self.inference.infer(x, index, chain, noise)
        if self.fit_base is not None:
            self.fit_base.record(inferred.z)
        return inferred

    def posterior_target(self, x: Tensor) -> LogDensity:
        """What posterior chains sample in training, in the coordinates of the chains."""
        return self.space.posterior(self.likelihood.given(x))

    def likelihood_loss(self, x: Tensor, z: Tensor, batch_idx: int) -> Tensor:
        """``-log p(x | z)``, mean over the batch, on the scale asked for; zero if nothing learns from it."""
        only_energy = self.fit_base is not None and self.fit_base.only_energy
        if only_energy or (not _trains(self.likelihood) and not z.requires_grad):
            return x.new_zeros((), dtype=z.dtype)
        nll = -self.likelihood.training_log_prob(x, z, self.noise("likelihood", batch_idx)).mean()
        self.note("train/nll_given_z", nll)
        if self.scale_likelihood:
            return nll
        return self.likelihood.squared_error(nll, x[0].numel())  # type: ignore[operator]

    def encoder_loss(self, data: Inferred) -> Tensor:
        """What the encoder alone learns from, a mean over the batch; zero without an encoder that learns.

        It is ``KL(q || p0)`` for a variational encoder and ``-log q(z+ | x)`` for a taught one.
        """
        if data.teaching is not None:
            self.note("train/inference_nll", data.teaching)
            return data.teaching
        if data.q is None:
            return data.z.new_zeros(())
        q, z, base = data.q, data.z, self.reference
        if isinstance(self.inference, Variational) and self.inference.kl == "monte_carlo":
            return (q.log_prob(z) - base.log_density(z)).mean()
        p = base.conditionals(z)
        if p is None:  # only the entropy has a closed form
            divergence = -(q.entropy() + base.log_density(z)).mean()
            self.note("kl", divergence)
            return divergence
        parts = q.divergences(p)
        self.note_divergences(parts)
        return parts.sum(dim=1).mean()

    def note_divergences(self, parts: Tensor) -> None:
        """Note the divergences of coordinates, ``(B, latent_dim)`` in nats."""
        self.note("kl", parts.sum(dim=1).mean())

    @property
    def prior_weight(self) -> float:
        """Weight of the prior's pull on the encoder in this step, in [0, 1]."""
        if not isinstance(self.inference, Variational):
            return 1.0
        return self.inference.prior_weight(math.inf if self._trainer is None else self.trainer.global_step)

    def energy_gap(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Mean energy of latents of data less that of latents of the prior, ``(B, latent_dim)`` each."""
        gap = contrast(self.prior.energy, positives, negatives)
        self.note("train/energy_gap", gap)
        return gap

    def negatives(self, n: int, batch_idx: int) -> Tensor:
        """``z-``: ``n`` latents of the prior by its chain, ``(n, latent_dim)``, detached."""
        noise = self.noise("prior", batch_idx)
        return self.run_chain("prior", self.prior_sampler, self.space.log_density, n, noise)


def _trains(part: nn.Module) -> bool:
    """Whether a part has parameters that learn."""
    return any(parameter.requires_grad for parameter in part.parameters())
