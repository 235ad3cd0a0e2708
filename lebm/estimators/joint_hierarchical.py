"""A joint energy-based prior on all layers of a multi-layer generator (paper 3 and its sibling)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lebm.estimators.backbone import Backbone
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_model import LatentPriorModel
from lebm.inference import Frozen, Inference, Inferred, ShortRun, Variational
from lebm.models.chain_space import NoiseSpace, chain_space, check_choice, common_layout, redraw
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.models.frozen import frozen
from lebm.models.hierarchical_priors import GaussianHierarchy
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.samplers.base import Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["JointHierarchicalPrior"]


class JointHierarchicalPrior(LatentPriorModel):
    r"""Cui, Wu, Han: *Learning Joint Latent Space EBM Prior Model for Multi-layer Generator*, CVPR 2023, and
    *Learning Hierarchical Features with Joint Latent Space Energy-Based Prior*, ICCV 2023.

    Let :math:`\tilde p(z) = e^{-E(z)} p_0(z)` be the prior without its constant, ``z+`` a draw of the
    encoder, and ``z-`` the end of a chain under the prior, detached. Then

    .. math:: L = -\log p_\beta(x \mid z^+) + \log q(z^+ \mid x) - \log \tilde p(z^+) + \log \tilde p(z^-)

    has the gradient of the negative ELBO for generator, encoder, energy and reference at once. The networks
    of the reference lie inside the tilted density, so they learn contrastively too. The encoder feels the
    energy through ``z+``. Without an energy this is a (hierarchical) variational auto-encoder.

    Args:
        likelihood: ``p(x | z)``, with the generator inside; :class:`~lebm.models.BottomLayer` for conditional
            hierarchies.
        prior: :class:`~lebm.models.EnergyPrior` (layers independent but for the energy, ICCV) or
            :class:`~lebm.models.HierarchicalPrior` (conditional Gaussians, CVPR). Without an energy:
            ``StandardNormal`` or ``GaussianChain``.
        prior_sampler: chain for ``z-`` and for sampling; it moves all layers at once.
        optimizer: learning rates of ``generator``, ``encoder``, ``energy`` and ``reference`` (the networks of
            a hierarchy), as far as they train.
        encoder: ``q(z | x)``. For ``two_stage``: any module that answers a batch with an object that has
            ``rsample(generator)``.
        posterior_sampler: chain for ``z+`` in the ``mcmc`` scheme.
        scheme: where ``z+`` come from. ``"variational"``: the encoder. ``"mcmc"``: ``posterior_sampler``,
            without an encoder. ``"two_stage"``: the encoder of a model trained before, frozen with its
            generator and reference; only the energy trains.
        space: coordinates of the chains: ``"latent"``, or the ``"noise"`` of a
            :class:`~lebm.models.HierarchicalPrior`.
        noise_target: ``"exact"`` or ``"released"``, see
            :meth:`~lebm.models.HierarchicalPrior.noise_log_density`.
        kl: ``"closed_form"``, layer by layer given the draw of the layers above, or ``"monte_carlo"``, as
            released.
        warm_up: scale, in steps, of the weight ``1 - exp(-step / warm_up)`` of the prior's pull on the
            encoder. The energy's own update is never weighted.
        backbone: checkpoint or run folder. Its generator, encoder and reference are copied when a
            ``two_stage`` training starts.
        scale_likelihood: as for :class:`~lebm.estimators.LatentMLE`.
        seed: seed of every random stream.
        noise_shards: number of parts of the global batch; the number of processes must divide it.
        evaluation_steps: posterior transitions in evaluation, in the ``mcmc`` scheme.

    Raises:
        ValueError: if the parts disagree on the layers, a part that the scheme needs is missing, or an
            argument is out of range.

    Example:
        >>> from lebm.estimators import AdamGroups, JointHierarchicalPrior
        >>> from lebm.models import ConcatenatedEnergy, EnergyPrior, GaussianLikelihood
        >>> from lebm.models import LadderEncoder, LadderGenerator
        >>> from lebm.samplers import Langevin
        >>> blocks = [["linear 8"], ["linear 8"]]
        >>> model = JointHierarchicalPrior(
        ...     GaussianLikelihood(LadderGenerator([2, 2], [1, 4, 4], [["linear 16"], ["linear 8"]]), 0.3),
        ...     EnergyPrior(ConcatenatedEnergy([2, 2], hidden=[8])),
        ...     Langevin(5, 0.4),
        ...     AdamGroups({"generator": 1e-3, "encoder": 1e-3, "energy": 1e-4}),
        ...     encoder=LadderEncoder([2, 2], [1, 4, 4], blocks),
        ... )
        >>> model.layout.sizes, model.sample(3).shape
        ([2, 2], torch.Size([3, 1, 4, 4]))
    """

    def __init__(
        self,
        likelihood: Likelihood,
        prior: Prior,
        prior_sampler: Sampler,
        optimizer: AdamGroups,
        encoder: GaussianEncoder | None = None,
        posterior_sampler: Sampler | None = None,
        scheme: Literal["variational", "mcmc", "two_stage"] = "variational",
        space: Literal["latent", "noise"] = "latent",
        noise_target: Literal["exact", "released"] = "exact",
        kl: Literal["closed_form", "monte_carlo"] = "closed_form",
        warm_up: float = 0.0,
        backbone: str | None = None,
        scale_likelihood: bool = True,
        seed: int = 0,
        noise_shards: int = 8,
        evaluation_steps: int | None = None,
    ) -> None:
        super().__init__(
            likelihood,
            prior,
            prior_sampler,
            posterior_sampler,
            optimizer,
            scale_likelihood,
            seed,
            noise_shards,
            evaluation_steps,
        )
        check_choice("scheme", scheme, ("variational", "mcmc", "two_stage"))
        check_choice("kl", kl, ("closed_form", "monte_carlo"))
        if (posterior_sampler if scheme == "mcmc" else encoder) is None:
            raise ValueError(
                f"scheme {scheme!r} needs {'a posterior_sampler' if scheme == 'mcmc' else 'an encoder'}"
            )
        if scheme == "mcmc" and encoder is not None:
            raise ValueError("scheme 'mcmc' has no encoder: its positives come from posterior_sampler")
        if scheme == "two_stage" and prior.is_exact:
            raise ValueError("scheme 'two_stage' trains an energy, and this prior has none")
        if backbone is not None and scheme != "two_stage":
            raise ValueError(
                "a backbone is for scheme 'two_stage'; start other schemes from a checkpoint with --ckpt_path"
            )
        if not warm_up >= 0:
            raise ValueError(f"warm_up must not be negative, but is {warm_up}")
        self.encoder = encoder
        self.scheme, self.kl, self.warm_up, self.backbone = scheme, kl, warm_up, backbone
        self.space = chain_space(prior, space, noise_target)
        self.layout = common_layout(prior, encoder, getattr(likelihood, "generator", None))
        self.frozen_parts = self._frozen_parts()
        optimizer.check(self.networks())

    # What trains

    @property
    def reference(self) -> Prior:
        """The prior without its energy."""
        return getattr(self.prior, "base", self.prior)

    @property
    def trains_reference(self) -> bool:
        """Whether the reference has networks that learn."""
        return _trains(self.reference)

    def networks(self) -> Mapping[str, nn.Module]:
        energy = getattr(self.prior, "tilt", None)
        parts = {"generator": self.likelihood, "encoder": self.encoder, "energy": energy}
        parts["reference"] = self.reference
        return {name: part for name, part in parts.items() if part is not None and _trains(part)}

    def _frozen_parts(self) -> Backbone:
        """Networks that the two-stage scheme copies and freezes; none in the other schemes."""
        parts: dict[str, nn.Module] = {}
        if self.scheme == "two_stage":
            assert self.encoder is not None
            parts = {"likelihood": self.likelihood, "encoder": self.encoder, "reference": self.reference}
        return Backbone(self.backbone, parts)

    def train(self, mode: bool = True) -> JointHierarchicalPrior:
        super().train(mode)
        self.frozen_parts.eval()
        return self

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.frozen_parts.load()

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:
            self.frozen_parts.check()

    # The loss

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        x = self.observations(batch)
        positives = self.infer(x, batch_idx)
        frozen_generator = self.scheme == "two_stage"
        nll = x.new_zeros(()) if frozen_generator else self.likelihood_loss(x, positives.z, batch_idx)
        positives = positives.weighted(self.prior_weight)
        total = nll + self.divergence(positives)
        if self.prior.is_exact:
            return total
        negatives = self.negatives(len(x), batch_idx)
        gap = self.energy_gap(positives.z, negatives)
        if self.trains_reference:
            gap = gap + self.reference.log_density(negatives).mean()
        return total + gap

    def infer(self, x: Tensor, batch_idx: int) -> Inferred:
        """``z+`` of a batch, as the scheme infers them."""

        def posterior(sampler: Sampler, noise: RandomSource) -> Tensor:
            target = self.space.posterior(self.likelihood.given(x))
            return self.run_chain("posterior", sampler, target, len(x), noise)

        return self.inference_part.infer(x, posterior, self.noise("posterior", batch_idx))

    @property
    def inference_part(self) -> Inference:
        """Where ``z+`` come from."""
        if self.scheme == "mcmc":
            assert self.posterior_sampler is not None
            return ShortRun(self.posterior_sampler)
        assert self.encoder is not None
        return Variational(self.encoder) if self.scheme == "variational" else Frozen(self.encoder)

    def divergence(self, positives: Inferred) -> Tensor:
        """``KL(q || p0)``, mean over the batch; without q ``-log p0(z)``, if the reference trains."""
        q, z, base = positives.q, positives.z, self.reference
        if q is None:
            return -base.log_density(z).mean() if self.trains_reference else z.new_zeros(())
        if self.kl == "monte_carlo":
            return (q.log_prob(z) - base.log_density(z)).mean()
        zeros = torch.zeros_like(z)
        p = base.conditionals(z) if isinstance(base, GaussianHierarchy) else DiagonalGaussian(zeros, zeros)
        parts = q.divergences(p)
        for layer, value in enumerate(self.layout.sums(parts.detach()).mean(dim=0), start=1):
            self.note(f"kl/layer_{layer}", value)
        return parts.sum(dim=1).mean()

    @property
    def prior_weight(self) -> float:
        """Weight of the prior's pull on the encoder in this step, in [0, 1]."""
        if self.warm_up == 0 or self._trainer is None:
            return 1.0
        return 1.0 - math.exp(-(self.trainer.global_step + 1) / self.warm_up)

    # The answers

    def inferred(self, x: Tensor) -> DiagonalGaussian | None:
        return None if self.encoder is None else self.encoder(x)

    def encode(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        if self.encoder is None:
            return super().encode(x, steps=steps, generator=generator)
        with torch.no_grad():
            return self.encoder(x).rsample(generator)

    def redraw(
        self, z: Tensor, layers: list[int], *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """Latents with some layers drawn anew from the prior given the others, ``(B, latent_dim)``.

        Args:
            z: ``(B, latent_dim)``.
            layers: numbers of the layers to draw; 0 is nearest to the data.
            steps: length of the chain; that of ``prior_sampler`` if ``None``.
            generator: source of randomness.
        """
        free = self.layout.mask(layers, z.device)
        with torch.inference_mode(False), frozen(self.prior, self.prior_sampler):
            return redraw(self.space, self.prior_sampler, z.clone(), free, generator, steps)

    def log_joint_above(
        self, x: Tensor, z: Tensor, k: int, *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        r"""One draw's :math:`L^{>k}` (CVPR 2023, eq. 20): ``log p(x, z)`` unnormalised, the k lowest layers
        of ``z`` drawn from the prior.

        :math:`\mathrm{LLR}^{>k} = L^{>0} - L^{>k}` is high for what only the lower layers explain.

        Returns:
            ``(B,)``.
        """
        return self.log_joint(x, self.redraw(z, list(range(k)), steps=steps, generator=generator))

    @property
    def chain_settings(self) -> dict[str, Any]:
        own = {"scheme": self.scheme, "space": "noise" if isinstance(self.space, NoiseSpace) else "latent"}
        return {**super().chain_settings, **own}


def _trains(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
