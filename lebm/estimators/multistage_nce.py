"""A latent prior learned in stages by classification (paper 2).

L = -log p(x | z+) + softplus(E_k(z+)) + softplus(-E_k(z-)),    r_k = exp(-E_k),
z+ from the aggregate posterior,  z- from the prior so far, p0(z) r_1(z) ... r_(k-1)(z)
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn.functional import softplus

from lebm.density_ratio.log_ratio import direct_log_z, staged_log_z
from lebm.errors import UserError, at_least
from lebm.estimators.latent_model import both_energies
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_model import PriorModel
from lebm.estimators.stages import StageRecord, StageRule, renew_averages, stage_lines, warn
from lebm.inference import Inferred
from lebm.models.likelihoods import Likelihood
from lebm.models.mixture import GaussianMixture
from lebm.models.ratios import RatioPrior
from lebm.samplers.annealed import AnnealedImportanceSampling
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import Noise, RandomSource


class MultiStageNCE(PriorModel):
    r"""Xiao, Han: *Adaptive Multi-stage Density Ratio Estimation for Learning Latent Space Energy-based
    Model*, NeurIPS 2022.

    The prior is :math:`p_K(z) \propto p_0(z) \prod_k r_k(z)`. In stage k a classifier with logit
    :math:`\log r_k = -E_k` separates samples ``z+`` of the aggregate posterior from samples ``z-`` of the
    product of the earlier stages. Both are detached, and the loss is

    .. math:: L = -\log p_\beta(x \mid z^+) + \mathrm{softplus}(E_k(z^+)) + \mathrm{softplus}(-E_k(z^-)).

    ``z+`` comes from a short posterior chain under the *finished* stages, so no chain runs through the
    network in training. ``z-`` are exact samples of N(0, I) in stage 1, and ends of chains under the finished
    stages later. The documentation of the method lists the differences from the paper.

    :class:`~lebm.inference.Variational` inference adds ``KL(q || p0)`` and the energy of the finished stages,
    which train the encoder. A single stage with :class:`~lebm.inference.Variational` or
    :class:`~lebm.inference.Frozen` is a noise contrastive prior (Aneja et al. 2021).

    Queries (``sample``, ``encode``, ``log_joint``, ...) use the prior with the stage in training.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        prior: the product of ratios.
        prior_sampler: chain for ``z-`` and for sampling. :class:`~lebm.samplers.PersistentChains` may
            continue it, because the target is constant within a stage.
        posterior_sampler: chain for ``z+``; ``None`` if the inference runs no chain.
        optimizer: optimiser settings of ``generator``, ``energy`` and ``encoder``, for the trained ones.
        stages: rule that ends a stage.
        annealing: estimator of log Z at the end of every stage; without it ``log_prob`` is unnormalised.
        annealing_chains: number of chains of ``annealing``, at least 2.
        update_generator_in_stage: whether the generator is trained beside the classifier. If not,
            ``optimizer`` has no ``generator``.
        warm_start: whether a stage starts from the hidden layers of the last stage instead of new ones.
        through_stages: whether fresh chains divide their steps equally among the products of 1, 2, ...
            stages, instead of running under the last product alone. They then enter narrow clusters while the
            density is still wide.
        keep_shares: whether the weights of a fitted :class:`~lebm.models.GaussianMixture` as base are changed
            at the end of a stage so that the components of the prior keep their shares, which the error of a
            ratio shifts.
        **model: other arguments of :class:`~lebm.estimators.PriorModel`. With ``fit_base`` the first stage
            begins after the last fit, and its negatives are exact samples of the base.

    Raises:
        ValueError: if likelihood and prior disagree on the latent size, or an argument is out of range.

    Example:
        >>> from lebm.estimators import MultiStageNCE
        >>> from lebm.estimators import AdamGroups, FixedStages
        >>> from lebm.models import GaussianLikelihood, MLPEnergy, MLPGenerator, RatioPrior, RatioProduct
        >>> from lebm.samplers import Langevin
        >>> network = MLPEnergy(2, hidden=[8], output_bias=True)
        >>> model = MultiStageNCE(
        ...     GaussianLikelihood(MLPGenerator(2, [1, 4, 4], hidden=[8]), sigma=0.3),
        ...     RatioPrior(RatioProduct(network, max_stages=3)),
        ...     Langevin(5, 0.4),
        ...     Langevin(5, 0.1),
        ...     AdamGroups({"generator": 1e-3, "energy": 1e-3}),
        ...     stages=FixedStages(100),
        ... )
        >>> model.stage, model.sample_latent(3).shape
        (1, torch.Size([3, 2]))
    """

    prior: RatioPrior

    def __init__(
        self,
        likelihood: Likelihood,
        prior: RatioPrior,
        prior_sampler: Sampler,
        posterior_sampler: Sampler | None,
        optimizer: AdamGroups,
        stages: StageRule,
        annealing: AnnealedImportanceSampling | None = None,
        annealing_chains: int = 512,
        update_generator_in_stage: bool = True,
        warm_start: bool = True,
        through_stages: bool = False,
        keep_shares: bool = True,
        **model: Any,
    ) -> None:
        if not update_generator_in_stage:
            likelihood.requires_grad_(False)  # from the start, so that nothing is toggled later
        super().__init__(likelihood, prior, prior_sampler, posterior_sampler, optimizer, **model)
        at_least(2, annealing_chains=annealing_chains)
        self.stages = stages
        self.annealing = annealing
        self.annealing_chains = annealing_chains
        if not update_generator_in_stage:
            self.frozen_parts["likelihood"] = likelihood
        self.warm_start = warm_start
        self.through_stages = through_stages
        self.keep_shares = keep_shares

    # The loss

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        x = self.observations(batch)
        data = self.infer(x, batch, batch_idx)
        total = data.z.new_zeros(())
        if not self.prior.asleep:
            negatives = self.negatives(len(x), batch_idx)
            total = self.classification(data.z.detach(), negatives, batch.get("index"))
        total = total + self.likelihood_loss(x, data.z, batch_idx)
        self.note("stage", torch.tensor(float(self.stage)))
        return total + self.encoder_loss(data.weighted(self.prior_weight))

    def posterior_target(self, x: Tensor) -> LogDensity:
        """Return the posterior under the finished stages, whose networks are not in training."""
        likelihood, so_far = self.likelihood.given(x), self.prior.log_density_so_far()
        return lambda z: likelihood(z) + so_far(z)

    def encoder_loss(self, data: Inferred) -> Tensor:
        """Return the loss of :class:`PriorModel`, plus the energy of the finished stages for an encoder."""
        loss = super().encoder_loss(data)
        waits = data.q is None or self.prior.asleep
        return loss if waits else loss + self.prior.tilt.so_far(data.z).mean()

    def negatives(self, n: int, batch_idx: int) -> Tensor:
        """Draw ``z-`` from the finished stages, ``(n, latent_dim)``; exact samples in stage 1."""
        noise = self.noise("prior", batch_idx)
        if self.prior.tilt.finished == 0:
            return self.prior.reference(n, noise)
        return self.run_chain("prior", self.prior.log_density_so_far(), n, noise)

    def classification(self, positives: Tensor, negatives: Tensor, index: Tensor | None) -> Tensor:
        """Return the classifier's loss; held-out rows are measured but not trained on."""
        up, down = both_energies(self.prior.tilt.active, positives, negatives)
        every = self.stages.held_out
        measured = torch.ones_like(up, dtype=torch.bool)
        if every:
            if index is None:
                raise UserError(
                    'stages hold out rows by number: batches need "index", (B,), or held_out must be 0'
                )
            measured = index.to(up.device) % every == 0
        self.stages.record(up.detach(), down.detach(), measured)
        # The expected share of trained rows, so that the loss is a mean over rows in any layout.
        weight = (~measured).to(up.dtype) * (every / (every - 1)) if every else torch.ones_like(up)
        loss = (weight * (softplus(up) + softplus(-down))).mean()
        self.note("train/nce", loss)
        self.note("stages/accuracy", 0.5 * ((up < 0).float().mean() + (down >= 0).float().mean()))
        return 0.0 * loss if self.stages.ended else loss

    def fresh_chains(self, start: Tensor, steps: int | None, generator: RandomSource) -> Tensor:
        if not self.through_stages:
            return super().fresh_chains(start, steps, generator)
        finished = range(1, self.prior.tilt.finished + (0 if self.prior.tilt.complete else 1))
        targets = [*(self.prior.log_density_after(stage) for stage in finished), self.prior.target()]
        z, steps = start, self.prior_sampler.steps if steps is None else steps
        for number, target in enumerate(targets):
            share = steps * (number + 1) // len(targets) - steps * number // len(targets)
            z = self.prior_sampler(target, z.detach(), generator, steps=share)
        return z

    @property
    def chain_settings(self) -> dict[str, Any]:
        """Samplers, settings of the stages, and the error of their sum of logits."""
        return {
            **super().chain_settings,
            "stages": [asdict(record) for record in self.stages.history],
            "log_z": self.prior.get_extra_state()["constants"],
        }

    @property
    def stage(self) -> int:
        """Number of the stage in training, from 1; the last stage if all are over."""
        return len(self.stages.history) + (0 if self.stages.ended else 1)

    # The end of a stage

    def after_step(self, optimizer: torch.optim.Optimizer) -> StageRecord | None:
        """Count a step, and return the record of the stage if this step finished it."""
        product, waited = self.prior.tilt, self.prior.asleep
        super().after_step(optimizer)
        record = None if waited else self.stages.step(product.max_stages - product.finished)
        if record is None:
            return None
        if record.kept:
            product.switch(self.warm_start, seed=Noise([(self.seed, "stage", record.stage)]).seeds[0])
            self._restore_shares()
            self._estimate_log_z(record.stage)
        else:
            product.discard()
        for parameter in product.active.parameters():
            for moment in optimizer.state.get(parameter, {}).values():  # Adam's moments and step count
                moment.zero_()
        if self._trainer is not None:
            renew_averages(self.trainer, self, ["prior", "stages"])
            self.trainer.should_stop = self.trainer.should_stop or self.stages.ended
        self._report()
        return record

    def _restore_shares(self) -> None:
        base, stages, last = self.prior.base, self.prior.tilt.stages, self.prior.tilt.finished
        if self.keep_shares and isinstance(base, GaussianMixture):
            noise = Noise([(self.seed, "shares", last)])
            base.keep_shares(lambda z: -stages(z, last - 1).sum(0), lambda z: -stages(z, last).sum(0), noise)
            self.share_base()
            self.prior.constants.clear()  # they belong to the former weights

    def _estimate_log_z(self, stage: int) -> None:
        """Store the narrowest estimate of log Z, equal on all processes, because adapted steps must agree."""
        found = []
        if self.annealing is not None:
            noise = Noise([(self.seed, "annealing", stage)])
            found.append(staged_log_z(self.prior, self.annealing, self.annealing_chains, noise))
        if self.fit_base is not None:
            noise = Noise([(self.seed, "direct log z", stage)])
            found.append(direct_log_z(self.prior, generator=noise))
        if found:
            narrowest = min(found, key=lambda constant: float(constant.high - constant.low))
            self.prior.constants[self.prior.tilt.finished] = narrowest

    @rank_zero_only
    def _report(self) -> None:
        for line in stage_lines(self.stages, self.prior):
            (print if self._trainer is None else self.print)(line)
        warn(self.stages.history, self.prior)
