"""A joint energy-based prior on all layers of a multi-layer generator (paper 3 and its companion).

L = -log p(x | z+) + log q(z+ | x) - log p~(z+) + log p~(z-),    p~(z) = exp(-E(z)) p0(z),
z+ from the encoder q(z | x),  z- from the prior, all layers at once
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lebm.component import constructor_parameters, public_path
from lebm.estimators.optim import AdamGroups
from lebm.estimators.prior_model import PriorModel, trained
from lebm.inference import Inference, Inferred, ShortRun, Variational
from lebm.models.chain_space import NoiseSpace, chain_space, common_layout, redraw
from lebm.models.frozen import frozen
from lebm.models.likelihoods import Likelihood
from lebm.models.priors import Prior
from lebm.samplers.base import Sampler
from lebm.samplers.noise import RandomSource


class JointHierarchicalPrior(PriorModel):
    r"""Cui, Wu, Han: *Learning Joint Latent Space EBM Prior Model for Multi-layer Generator*, CVPR 2023, and
    *Learning Hierarchical Features with Joint Latent Space Energy-Based Prior*, ICCV 2023.

    Let :math:`\tilde p(z) = e^{-E(z)} p_0(z)` be the unnormalised prior, ``z+`` a sample of the encoder, and
    ``z-`` the end of a chain under the prior, detached. Then

    .. math:: L = -\log p_\beta(x \mid z^+) + \log q(z^+ \mid x) - \log \tilde p(z^+) + \log \tilde p(z^-)

    has the gradient of the negative ELBO for generator, encoder, energy and reference. The networks of the
    reference are part of the tilted density, so they also learn contrastively. The energy trains the encoder
    through ``z+``. Without an energy this is a (hierarchical) variational autoencoder.

    Args:
        likelihood: ``p(x | z)``, with the generator inside; :class:`~lebm.models.BottomLayer` for conditional
            hierarchies.
        prior: :class:`~lebm.models.EnergyPrior` (independent layers with a joint energy, ICCV) or
            :class:`~lebm.models.HierarchicalPrior` (conditional Gaussians, CVPR); ``StandardNormal`` or
            ``GaussianChain`` without an energy.
        prior_sampler: chain for ``z-`` and for sampling, on all layers together.
        optimizer: optimiser settings of ``generator``, ``encoder``, ``energy`` and ``reference`` (the
            networks of a hierarchy), for the trained ones.
        inference: source of ``z+``: :class:`~lebm.inference.Variational`, an encoder (ICCV);
            :class:`~lebm.inference.ShortRun`, ``posterior_sampler`` without an encoder (CVPR); or
            :class:`~lebm.inference.Frozen`, the encoder of a model trained before, with its generator and
            reference, so that only the energy is trained (the two-stage scheme). Other kinds are not
            published.
        posterior_sampler: chain for ``z+``; ``None`` if the inference runs no chain.
        space: coordinates of the chains: ``"latent"``, or the ``"noise"`` of a
            :class:`~lebm.models.HierarchicalPrior`.
        noise_target: ``"exact"`` or ``"released"``, see
            :meth:`~lebm.models.HierarchicalPrior.noise_log_density`.
        **model: other arguments of :class:`~lebm.estimators.PriorModel`. With ``fit_base`` the base is fitted
            to all layers together.

    Raises:
        ValueError: if the parts disagree on the layers, a part that the inference needs is missing, or an
            argument is out of range.

    Example:
        >>> from lebm.estimators import AdamGroups, JointHierarchicalPrior
        >>> from lebm.inference import Variational
        >>> from lebm.models import ConcatenatedEnergy, EnergyPrior, GaussianLikelihood
        >>> from lebm.models import LadderEncoder, LadderGenerator
        >>> from lebm.samplers import Langevin
        >>> blocks = [["linear 8"], ["linear 8"]]
        >>> model = JointHierarchicalPrior(
        ...     GaussianLikelihood(LadderGenerator([2, 2], [1, 4, 4], [["linear 16"], ["linear 8"]]), 0.3),
        ...     EnergyPrior(ConcatenatedEnergy([2, 2], hidden=[8])),
        ...     Langevin(5, 0.4),
        ...     AdamGroups({"generator": 1e-3, "encoder": 1e-3, "energy": 1e-4}),
        ...     Variational(LadderEncoder([2, 2], [1, 4, 4], blocks)),
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
        inference: Inference,
        posterior_sampler: Sampler | None = None,
        space: Literal["latent", "noise"] = "latent",
        noise_target: Literal["exact", "released"] = "exact",
        **model: Any,
    ) -> None:
        super().__init__(likelihood, prior, prior_sampler, posterior_sampler, optimizer, inference, **model)
        self.space = chain_space(prior, space, noise_target)
        generator = getattr(likelihood, "generator", None)
        self.layout = common_layout(prior, self.inference.encoder, generator)
        self.register_load_state_dict_pre_hook(_renamed)

    def networks(self) -> Mapping[str, nn.Module]:
        energy = getattr(self.prior, "tilt", None)
        return trained(
            generator=self.likelihood, encoder=self.encoder, energy=energy, reference=self.reference
        )

    # The loss

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        data, loss = self.data_terms(batch, batch_idx)
        if self.prior.is_exact:
            return loss
        negatives = self.negatives(len(data.z), batch_idx)
        gap = self.energy_gap(data.z, negatives)
        if "reference" in self.networks():
            gap = gap + self.reference.log_density(negatives).mean()
        return loss + gap

    def encoder_loss(self, data: Inferred) -> Tensor:
        """Return the loss of :class:`PriorModel`, or ``-log p0(z)`` without q if the reference learns."""
        loss = super().encoder_loss(data)
        if data.q is None and "reference" in self.networks():
            loss = loss - self.reference.log_density(data.z).mean()
        return loss

    def note_divergences(self, parts: Tensor) -> None:
        for layer, value in enumerate(self.layout.sums(parts.detach()).mean(dim=0), start=1):
            self.note(f"kl/layer_{layer}", value)

    # Queries

    def redraw(
        self, z: Tensor, layers: list[int], *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """Draw some layers again from the prior given the others, ``(B, latent_dim)``.

        Args:
            z: latents ``(B, latent_dim)``.
            layers: indices of the layers to draw; 0 is nearest to the data.
            steps: length of the chain; the length of ``prior_sampler`` if ``None``.
            generator: source of randomness.
        """
        free = self.layout.mask(layers, z.device)
        with torch.inference_mode(False), frozen(self.prior, self.prior_sampler):
            return redraw(self.space, self.prior_sampler, z.clone(), free, generator, steps)

    @property
    def chain_settings(self) -> dict[str, Any]:
        space = "noise" if isinstance(self.space, NoiseSpace) else "latent"
        return {**super().chain_settings, "space": space}

    @classmethod
    def from_former(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return current arguments for a checkpoint in which ``scheme`` named the inference."""
        now = super().from_former(arguments)
        if "scheme" in now:
            former = {name: now.pop(name) for name in ("scheme", "encoder", "kl", "warm_up", "backbone")}
            kind = {"variational": Variational, "mcmc": ShortRun}[former["scheme"]]
            own = {name: former[name] for name in constructor_parameters(kind) if name in former}
            now["inference"] = {"class_path": public_path(kind), "init_args": own}
        return now


def _renamed(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Rename the weights of an encoder that an older checkpoint holds outside the inference, in place."""
    for name in [name for name in state if name.startswith(f"{prefix}encoder.")]:
        state[f"{prefix}inference.{name.removeprefix(prefix)}"] = state.pop(name)
