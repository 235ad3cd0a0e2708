"""A generator with a learned prior and an inference of latents, shared by papers 1 to 3."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lebm import checkpoint as checkpoints
from lebm.component import describe
from lebm.errors import UserError, UserNotice
from lebm.estimators.fit_base import FitBase
from lebm.estimators.latent_model import LatentModel, both_energies
from lebm.estimators.optim import AdamGroups
from lebm.estimators.stages import renew_averages
from lebm.inference import Frozen, Inference, Inferred, PosteriorChain, ShortRun, Variational, mirror_encoder
from lebm.models.adapters import ModuleAutoencoder, ModuleEncoder, OwnEncoder
from lebm.models.chain_space import ChainSpace
from lebm.models.encoders import GaussianEncoder
from lebm.models.energies import ClassEnergy
from lebm.models.frozen import frozen
from lebm.models.layers import check_choice, check_sizes
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import EnergyPrior, Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import sum_over_processes
from lebm.samplers.importance import IndependenceMetropolis, clean_log_weights, weight_ess
from lebm.samplers.noise import Noise, RandomSource


class PriorModel(LatentModel):
    """Base class of models with a likelihood, a prior, an inference and two chains.

    Chains always use :func:`~lebm.models.frozen` networks, and only training uses a pool of chains.

    Args:
        likelihood: ``p(x | z)``, with the generator inside.
        prior: ``p(z)``.
        prior_sampler: chain for ``p(z)``.
        posterior_sampler: chain for ``p(z | x)``; ``None`` if the inference runs no chain.
        optimizer: optimiser settings, with a learning rate for each of :meth:`networks`; 0.001 for each if
            ``None``.
        inference: inference of latents of data; :class:`~lebm.inference.ShortRun` if ``None``.
        fit_base: schedule of fits of the base of the prior; ``None`` for a base that is not fitted.
        anomaly: anomaly score: ``"joint"``, ``-log p(x, z)`` at one posterior sample, or ``"code"``,
            ``-log p(z)`` at the mean of the encoder, which separates better with many normal images and a
            fitted base (docs/results/base.md).
        **shared: other arguments of :class:`~lebm.estimators.LatentModel`.

    Raises:
        ValueError: if the parts disagree on the latent size, the inference lacks a chain or an encoder,
            ``scale_likelihood`` does not apply to the likelihood, or the prior has no base to fit.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        prior: Prior,
        prior_sampler: Sampler,
        posterior_sampler: Sampler | None = None,
        optimizer: AdamGroups | None = None,
        inference: Inference | None = None,
        fit_base: FitBase | None = None,
        anomaly: Literal["joint", "code"] = "joint",
        **shared: Any,
    ) -> None:
        super().__init__(likelihood, optimizer or AdamGroups({}), **shared)
        check_sizes("the generator takes", likelihood.latent_dim, "the prior has", prior.latent_dim)
        if not self.scale_likelihood and not hasattr(likelihood, "sigma"):
            raise ValueError("scale_likelihood=False is defined for a GaussianLikelihood only")
        self.prior = prior
        self.space = ChainSpace(prior)
        self.prior_sampler = prior_sampler
        self.posterior_sampler = posterior_sampler
        self.inference = self._take(inference)
        self.fit_base = fit_base
        check_choice("anomaly", anomaly, ("joint", "code"))
        self.anomaly = anomaly
        if anomaly == "code":
            self.anomaly_score_name = "-log p(z) at the mean of the encoder"
            if self.inference.encoder is None:
                raise ValueError("anomaly 'code' scores the mean of an encoder, and this inference has none")
        self.frozen_parts: dict[str, Any] = {}  # always in evaluation mode
        if isinstance(self.inference, Frozen):
            self.frozen_parts = {"likelihood": likelihood, "encoder": self.inference.encoder}
            if fit_base is None:  # a base that is fitted needs no backbone
                self.frozen_parts["reference"] = self.reference
        for part in self.frozen_parts.values():
            part.requires_grad_(False)  # from the start, so that nothing is toggled in training
        if fit_base is not None:
            if type(self.reference).fit is Prior.fit:
                name = type(self.reference).__name__
                raise ValueError(f"fit_base needs a base with a fit, such as GaussianMixture, not {name}")
            self.reference.requires_grad_(False)  # a base is trained by its own fit
            if isinstance(prior, EnergyPrior):
                prior.wait_for(fit_base)
        if optimizer is None:
            self.optimizer_settings = AdamGroups(dict.fromkeys(self.networks(), 1e-3))
        self.optimizer_settings.check(self.networks())

    def _take(self, inference: Inference | None) -> Inference:
        """Return the checked inference, with an encoder made for the generator if it lacks one."""
        part = ShortRun() if inference is None else inference
        name = type(part).__name__
        if part.runs_chain and self.posterior_sampler is None:
            raise ValueError(f"inference {name} runs posterior chains: give a posterior_sampler")
        if part.needs_encoder and part.encoder is None:
            part.encoder = mirror_encoder(self.likelihood.generator)
        if isinstance(part.encoder, OwnEncoder) and isinstance(self.likelihood.generator, ModuleAutoencoder):
            part.encoder = self.likelihood.generator.mirror()  # an inference from a checkpoint is a copy
        if part.encoder is not None and not isinstance(part.encoder, GaussianEncoder):
            part.encoder = ModuleEncoder(part.encoder, self.latent_dim)
        if part.encoder is not None:
            check_sizes("the prior has", self.latent_dim, "the encoder gives", part.encoder.latent_dim)
        if isinstance(part, Frozen) and self.prior.is_exact:
            raise ValueError("inference Frozen trains an energy, and this prior has none")
        return part

    @property
    def reference(self) -> Prior:
        """The prior without its energy."""
        return getattr(self.prior, "base", self.prior)

    @property
    def encoder(self) -> GaussianEncoder | None:
        """Encoder ``q(z | x)`` of the inference; ``None`` for an inference without an encoder."""
        return self.inference.encoder

    # Chains

    def run_chain(
        self,
        name: Literal["prior", "posterior"],
        target: LogDensity,
        n: int,
        noise: RandomSource,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return ``n`` latents of a training chain from ``start``, or from the reference."""
        sampler: Sampler = getattr(self, f"{name}_sampler")
        with frozen(self.prior, self.likelihood):
            if start is None:
                state = self.space.reference(n, noise)
            else:
                with torch.no_grad():
                    state = self.space.coordinates(start.to(self.dtype))
            return self._latents(self.follow(name, sampler, target, state, noise))

    def _latents(self, state: Tensor) -> Tensor:
        with torch.no_grad():
            return self.space.latents(state)

    def posterior(self, x: Tensor) -> LogDensity:
        likelihood, prior = self.likelihood.given(x), self.prior
        return lambda z: likelihood(z) + prior.log_density(z)

    # Queries

    def prior_latents(self, n: int, steps: int | None, generator: RandomSource) -> Tensor:
        """Draw ``n`` latents ``(n, latent_dim)`` from the prior.

        Without ``steps`` they are corrected samples of the base if :meth:`direct_draws` allows it, otherwise
        ends of chains of ``prior_sampler``.
        """
        if self.prior.is_exact:
            return self.prior.reference(n, generator).detach()
        direct = self.direct_draws() if steps is None else None
        with frozen(self.prior, self.prior_sampler):
            if direct is not None:
                start = self.reference.reference(n, generator)
                return direct[0](self.prior.target(), start, generator)
            start = self.space.reference(n, generator).detach()
            return self._latents(self.fresh_chains(start, steps, generator))

    def fresh_chains(self, start: Tensor, steps: int | None, generator: RandomSource) -> Tensor:
        """Return the ends of chains of the prior from ``start: (n, latent_dim)``, in their coordinates."""
        return self.prior_sampler(self.space.target(), start, generator, steps=steps)

    def direct_draws(self) -> tuple[IndependenceMetropolis, float] | None:
        """Return the sampler that corrects samples of the base, and its efficiency, if it is efficient.

        The weights ``exp(-E(z))`` of 4,096 samples of a fitted base give the number of independence
        Metropolis steps after which the distance in total variation is below 0.01, and the effective share of
        the samples, in (0, 1]. Above 60 steps the result is ``None``, because a chain of small steps costs
        less.
        """
        if self.fit_base is None or self.prior.is_exact:
            return None
        with torch.no_grad(), frozen(self.prior):
            z = self.reference.reference(4096, Noise([(self.seed, "direct draws")]))
            weights = clean_log_weights(-self.prior.energy(z).double())
        share = float(weight_ess(weights)) / len(weights)
        largest = float((weights.max() - weights.logsumexp(0)).exp()) * len(weights)
        steps = math.ceil(math.log(100) * largest) if math.isfinite(largest) else 0
        return (IndependenceMetropolis(steps), share) if 0 < steps <= 60 else None

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Infer one latent per row of ``x: (B, *event)``, ``(B, latent_dim)``.

        The posterior chain takes ``steps`` steps (default: ``evaluation_steps``). With 0, and without a
        ``posterior_sampler``, a sample of the encoder is returned.
        """
        if steps is None:
            steps = self.evaluation_steps
        if steps is None and not self.inference.runs_chain:
            steps = 0
        with torch.inference_mode(False), frozen(self.prior, self.likelihood, self.inference):
            x = x.clone()  # inference tensors have no gradients
            z, sampler = self.inference.start(x, generator), self.posterior_sampler
            if z is not None and (sampler is None or steps == 0):
                return z
            assert sampler is not None  # checked in the constructor
            state = self.space.reference(len(x), generator) if z is None else self.space.coordinates(z)
            target = self.space.posterior(self.likelihood.given(x))
            with frozen(sampler):
                return self._latents(sampler(target, state.detach(), generator, steps=steps))

    def score_at(self, x: Tensor, z: Tensor) -> Tensor:
        """Return ``-log p(x, z)``, or for ``"code"`` ``-log p(z)`` at the mean of the encoder, ``(B,)``."""
        if self.anomaly == "joint":
            return super().score_at(x, z)
        with frozen(self.prior), torch.no_grad():
            return -self.prior.log_density(self.code(x))

    @torch.no_grad()
    def code(self, x: Tensor) -> Tensor:
        """Return the mean of the encoder, ``(B, latent_dim)``, for ``x: (B, *event)``."""
        assert self.inference.encoder is not None
        with frozen(self.inference):
            return self.inference.encoder(x).mean

    @property
    def chain_settings(self) -> dict[str, Any]:
        described = describe(self.inference, strict=False)
        assert isinstance(described, dict)
        described["init_args"].pop("encoder", None)  # its networks are part of the checkpoint
        settings = {**super().chain_settings, "inference": described}
        direct = self.direct_draws()
        if direct is not None:
            settings["direct_draws"] = {"steps": direct[0].steps, "effective_share": direct[1]}
        return settings

    # Training

    def networks(self) -> Mapping[str, nn.Module]:
        return trained(generator=self.likelihood, encoder=self.encoder, energy=self.prior)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for part in self.frozen_parts.values():
            part.eval()  # so that no statistics change
        return self

    def on_fit_start(self) -> None:
        backbone = getattr(self.inference, "backbone", None)
        if backbone is not None and self.trainer.ckpt_path is None:  # a resumed run has its own weights
            _copy_backbone(backbone, self.frozen_parts)
        if self.fit_base and (doubt := self.fit_base.start(self.trainer.estimated_stepping_batches)):
            rank_zero_warn(doubt, category=UserNotice)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        own = self.likelihood.generator
        if isinstance(own, ModuleAutoencoder) and not own.measured:
            own.measure(self.observations(batch))
            own.load_state_dict(self.trainer.strategy.broadcast(own.state_dict()))
            renew_averages(self.trainer, self, ["likelihood"])

    # The fit of the base

    @property
    def idle_networks(self) -> list[nn.Module]:
        """Networks that do not learn now: an energy before the fit, or all others after it."""
        if self.fit_base is None:
            return []
        idle, others = {"energy": self.fit_base.pending}, self.fit_base.only_energy
        return [part for name, part in self.networks().items() if idle.get(name, others)]

    def after_step(self, optimizer: torch.optim.Optimizer) -> Any:
        """Count a step, and fit the base if a fit is due."""
        latents = None if self.fit_base is None else self.fit_base.step()
        if self.fit_base is None or latents is None:
            return
        seed = Noise([(self.seed, "base", self.fit_base.steps)]).seeds[0]
        cards = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cards), torch.enable_grad():
            torch.manual_seed(seed)  # for a fit that uses torch's default generator
            self.reference.requires_grad_(True)
            try:
                self.reference.fit(latents.to(self.device), torch.Generator(self.device).manual_seed(seed))
            except ValueError as error:
                raise UserError(f"fit_base: no fit after step {self.fit_base.steps}: {error}") from error
            self.reference.requires_grad_(False)
        self.share_base()
        if self._trainer is not None:
            renew_averages(self.trainer, self, ["prior", "fit_base"])

    def share_base(self) -> None:
        """Give all processes the base of the first, because on a GPU the same fit may differ between them."""
        if self._trainer is not None:
            self.reference.load_state_dict(self.trainer.strategy.broadcast(self.reference.state_dict()))

    # For the loss

    def data_terms(self, batch: Mapping[str, Tensor], batch_idx: int) -> tuple[Inferred, Tensor]:
        """Return ``z+`` of a batch, and ``-log p(x | z+)`` plus the loss of the encoder alone."""
        x = self.observations(batch)
        data = self.infer(x, batch, batch_idx)
        nll = self.likelihood_loss(x, data.z, batch_idx)
        data = data.weighted(self.prior_weight)
        return data, nll + self.encoder_loss(data)

    def infer(self, x: Tensor, batch: Mapping[str, Tensor], batch_idx: int) -> Inferred:
        """Infer ``z+``, latents ``(B, latent_dim)`` of ``x: (B, *event)``, the observations of a batch."""
        target = self.posterior_target(x)
        chain = PosteriorChain(
            run=lambda start, noise: self.run_chain("posterior", target, len(x), noise, start),
            reference=lambda noise: self._latents(self.space.reference(len(x), noise)),
        )
        index = batch.get("index")
        if index is not None and "flipped" in batch:  # a flipped image has another posterior
            index = 2 * index + batch["flipped"].to(index)
        noise = self.noise("posterior", batch_idx)
        if self.fit_base is not None and self.fit_base.only_energy:
            with torch.no_grad(), frozen(self.likelihood, self.inference):
                return Inferred(self.inference.infer(x, index, chain, noise).z)
        inferred = self.inference.infer(x, index, chain, noise)
        if self.fit_base is not None:
            self.fit_base.record(inferred.z, new_epoch=batch_idx == 0)
        return inferred

    def posterior_target(self, x: Tensor) -> LogDensity:
        """Return the target of posterior chains in training, in the coordinates of the chains."""
        return self.space.posterior(self.likelihood.given(x))

    def likelihood_loss(self, x: Tensor, z: Tensor, batch_idx: int) -> Tensor:
        """Return the scaled ``-log p(x | z)``, mean over the batch; zero if nothing learns from it."""
        only_energy = self.fit_base is not None and self.fit_base.only_energy
        if only_energy or not ("generator" in self.networks() or z.requires_grad):
            return x.new_zeros((), dtype=z.dtype)
        nll = -self.likelihood.training_log_prob(x, z, self.noise("likelihood", batch_idx)).mean()
        self.note("train/nll_given_z", nll)
        return self.scaled(nll, x)

    def encoder_loss(self, data: Inferred) -> Tensor:
        """Return the loss of the encoder alone, a mean over the batch; zero without a trained encoder.

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

    def on_train_start(self) -> None:
        super().on_train_start()
        self.train(self.training)  # Lightning does not call it when training begins

    def energy_gap(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean energy of latents of data minus the mean of latents of the prior."""
        up, down = both_energies(self.prior.energy, positives, negatives)
        gap = up.mean() - down.mean()
        self.note("train/energy_gap", gap)
        return gap

    def label_loss(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return ``-log p(y | z)`` of a :class:`~lebm.models.ClassEnergy`, mean over the labelled rows.

        With several processes, the mean over them is the mean over the labelled rows of all. It is zero
        without labelled rows and for other energies. Gradients flow through ``z: (B, latent_dim)`` to the
        encoder.
        """
        energy, labels = getattr(self.prior, "tilt", None), batch.get("label")
        if not isinstance(energy, ClassEnergy) or labels is None:
            return z.new_zeros(())
        each = cross_entropy(energy.logits(z), labels, ignore_index=-1, reduction="sum")
        own = (labels >= 0).sum()
        known, processes = sum_over_processes(torch.stack([own, torch.ones_like(own)]))
        loss = processes * each / known.clamp_min(1)
        self.note("train/label_nll", loss)
        return energy.label_weight * loss

    def negatives(self, n: int, batch_idx: int) -> Tensor:
        """Draw ``z-``: ``n`` latents of the prior by its chain, ``(n, latent_dim)``, detached."""
        noise = self.noise("prior", batch_idx)
        return self.run_chain("prior", self.space.target(), n, noise)


def trained(**parts: nn.Module | None) -> dict[str, nn.Module]:
    """Return the parts that have parameters to learn, by name."""
    return {
        name: part
        for name, part in parts.items()
        if part is not None and any(parameter.requires_grad for parameter in part.parameters())
    }


def _copy_backbone(source: str, parts: Mapping[str, nn.Module]) -> None:
    """Copy the (averaged) weights of networks from a checkpoint, in place, without building its classes."""
    state = checkpoints.read(checkpoints.find_checkpoint(source))["state_dict"]

    def of(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    found = {
        "likelihood": of("likelihood."),
        "encoder": of("inference.encoder.") or of("encoder."),
        "reference": of("prior.base.") or of("prior."),
    }
    for name, part in parts.items():
        if name == "encoder" and not found[name]:
            raise UserError(f"{source}: holds no encoder, which a backbone needs")
        try:
            part.load_state_dict(found[name])
        except RuntimeError as error:
            last = str(error).splitlines()[-1].strip()
            raise UserError(f"{source}: its {name} does not match this recipe ({last})") from error
