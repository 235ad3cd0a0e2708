"""A prior learned as a product of density ratios, one classifier per stage."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lebm.models.energies import Energy, MLPEnergy
from lebm.models.priors import EnergyPrior, Prior, Tilted
from lebm.samplers.annealed import LogZ

CACHED_NUMBERS = 2**19
"""Approximate number of values of a hidden layer that fit into the cache of a CPU."""
_STORED = ("log_z", "low", "high", "ess")  # names in checkpoints, in the order of LogZ


class RatioProduct(Energy):
    r"""The energy :math:`-\sum_k \log r_k(z)` of a product of ratios, one ratio per stage.

    The product has the finished stages and the stage in training, ``active``, whose parameters stay the same
    objects for the whole run. A finished stage is a slot of preallocated buffers, and the slots in use are
    evaluated as *one* batched network. :meth:`switch` copies ``active`` into the next slot and sets its ratio
    to 1, so the product does not change, and neither the optimiser nor a data-parallel wrapper needs a
    change.

    Args:
        active: the network of a stage, with ``output_bias=True``, because the constant of a ratio is learned,
            and without spectral norm. Its last layer is set to zero, because a stage starts at the ratio 1.
        max_stages: number of slots, at least 1.

    Attributes:
        finished: number of finished stages.

    Raises:
        ValueError: for a network without an output bias or with spectral norm, or for ``max_stages`` below 1.

    Example:
        >>> import torch
        >>> from lebm.models import MLPEnergy, RatioProduct
        >>> energy = RatioProduct(MLPEnergy(latent_dim=2, output_bias=True), max_stages=2)
        >>> energy(torch.zeros(3, 2)).tolist(), energy.finished
        ([0.0, 0.0, 0.0], 0)
        >>> energy.switch()
        >>> energy.finished, energy.complete
        (1, False)
    """

    def __init__(self, active: MLPEnergy, max_stages: int = 4) -> None:
        super().__init__()
        if max_stages < 1:
            raise ValueError(
                f"max_stages must be at least 1, not {max_stages}; without stages the prior is N(0, I):"
                " LatentMLE with StandardNormal"
            )
        if not isinstance(active, MLPEnergy):
            raise ValueError(f"the stages have the layers of an MLPEnergy, not of a {type(active).__name__}")
        if any(hasattr(layer, "parametrizations") for layer in active.net):
            raise ValueError(
                "a stage starts from a zero layer, and a zero layer has no spectral norm; bound a ratio"
                " with weight_decay instead"
            )
        if active.net[-1].bias is None:
            raise ValueError("the constant of a ratio is learned: build its network with output_bias=True")
        self.latent_dim = active.latent_dim
        self.active = active
        self.activation = copy.deepcopy(active.net[1]) if len(active.net) > 1 else nn.Identity()
        self.max_stages = max_stages
        # A Python number, so that only the slots in use are evaluated; saved as extra state.
        self.finished = 0
        self.depth = len(self._active_layers())
        self.width = max(layer.out_features for layer in self._active_layers())
        for position, layer in enumerate(self._active_layers()):
            zeros = layer.weight.new_zeros
            self.register_buffer(f"slot_weight_{position}", zeros(max_stages, *layer.weight.shape))
            self.register_buffer(f"slot_bias_{position}", zeros(max_stages, layer.out_features))
        self.discard()

    def forward(self, z: Tensor) -> Tensor:
        return self.so_far(z) if self.complete else self.so_far(z) + self.active(z)

    @property
    def complete(self) -> bool:
        """True if all slots are in use, so that ``active`` is no longer part of the product."""
        return self.finished == self.max_stages

    def so_far(self, z: Tensor) -> Tensor:
        """Return the energy of the finished stages alone, ``(B,)``."""
        return self.stages(z).sum(dim=0)

    def stages(self, z: Tensor, first: int | None = None) -> Tensor:
        """Return the energies ``-log r_k`` of the ``first`` stages (default: all), ``(first, B)``."""
        count = self.finished if first is None else first
        if count == 0:
            return z.new_zeros(0, z.shape[0])
        # On a GPU all stages are one batched network. On a CPU a group has as many stages as fit into the
        # cache: larger groups are slower than single stages.
        group = count if z.is_cuda else max(1, CACHED_NUMBERS // max(1, z.shape[0] * self.width))
        starts = range(0, count, group)
        parts = [self._batched(z, slice(start, min(start + group, count))) for start in starts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _batched(self, z: Tensor, some: slice) -> Tensor:
        hidden = z.expand(some.stop - some.start, *z.shape)
        for position in range(self.depth):
            weight: Tensor = getattr(self, f"slot_weight_{position}")[some]
            bias: Tensor = getattr(self, f"slot_bias_{position}")[some]
            seen = self.activation(hidden) if position else hidden
            hidden = torch.baddbmm(bias.unsqueeze(1), seen, weight.transpose(1, 2))
        return hidden.squeeze(-1)

    @torch.no_grad()
    def switch(self, warm_start: bool = True, seed: int = 0) -> None:
        """Finish the stage in training: copy it into a slot, and set the ratio of ``active`` to 1.

        The caller must then clear the moments of the optimiser and the averages of the weights of ``active``.

        Args:
            warm_start: whether the next stage keeps the hidden layers instead of initialising them again.
            seed: seed of the initialisation; the default generator of torch is not used.

        Raises:
            ValueError: if all slots are in use.
        """
        if self.complete:
            raise ValueError(f"all {self.max_stages} stages are used; raise max_stages")
        for position, layer in enumerate(self._active_layers()):
            getattr(self, f"slot_weight_{position}")[self.finished].copy_(layer.weight)
            getattr(self, f"slot_bias_{position}")[self.finished].copy_(layer.bias)
        if not warm_start:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                for layer in self._active_layers():
                    layer.reset_parameters()
        self.discard()
        self.finished += 1

    @property
    def active_is_one(self) -> bool:
        """True if the ratio of the stage in training is exactly 1, as after a switch."""
        last = self._active_layers()[-1]
        return self.complete or not (last.weight.any() or last.bias.any())

    @torch.no_grad()
    def discard(self) -> None:
        """Discard the stage in training: set its ratio to 1."""
        last = self._active_layers()[-1]
        last.weight.zero_()
        last.bias.zero_()

    def _active_layers(self) -> list[nn.Linear]:
        return [layer for layer in self.active.net if isinstance(layer, nn.Linear)]

    # Extra state, not a buffer: an average of weights must not average the number of stages.

    def get_extra_state(self) -> dict[str, int]:
        return {"finished": self.finished}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.finished = int(state["finished"])


class RatioPrior(EnergyPrior):
    r"""A prior ``p(z) = p0(z) prod_k r_k(z) / Z``, with estimates of the ``Z`` of the finished stages.

    Every logit is a log-ratio to the *normalised* prior of its stage, so the sum of the logits misses the
    log-constants of the earlier stages. They are near zero only if the classes overlap and the negatives are
    exact samples.

    Args:
        energy: the product of ratios.
        base: the reference ``p0``, as for :class:`EnergyPrior`.

    Attributes:
        constants: estimates of ``log Z`` by number of finished stages, in nats, part of the ``state_dict``.

    Example:
        >>> import torch
        >>> from lebm.models import MLPEnergy, RatioPrior, RatioProduct
        >>> from lebm.samplers import LogZ
        >>> prior = RatioPrior(RatioProduct(MLPEnergy(latent_dim=2, output_bias=True)))
        >>> prior.tilt.switch()
        >>> prior.constants[1] = LogZ(*torch.tensor([0.0, -0.1, 0.1, 100.0]))
        >>> prior.log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    tilt: RatioProduct

    def __init__(self, energy: RatioProduct, base: Prior | None = None) -> None:
        super().__init__(energy, base)
        self.constants: dict[int, LogZ] = {}

    def log_density_after(self, stage: int) -> Tilted:
        """Return the unnormalised log-density of the first ``stage`` stages, a function of ``z``."""
        return Tilted(self.base, lambda z: self.tilt.stages(z, stage).sum(dim=0))

    def log_density_so_far(self) -> Tilted:
        """Return the unnormalised log-density of the finished stages, ``(B, d) -> (B,)``."""
        return Tilted(self.base, self.tilt.so_far)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return ``log p0(z) + sum_k log r_k(z) - log Z`` in nats, ``(B,)``.

        The sum without log Z is :meth:`log_density`.

        Raises:
            ValueError: without an estimate of ``log Z`` for the current product.
        """
        if not self.tilt.active_is_one:
            raise ValueError(
                f"stage {self.tilt.finished + 1} is in training and its log Z is not known; use log_density"
            )
        return self.log_density_so_far()(z) - float(self.log_constant().estimate)

    def log_constant(self) -> LogZ:
        """Return ``log Z`` of the finished stages, in nats.

        Raises:
            ValueError: without an estimate.
        """
        stage = self.tilt.finished
        if stage == 0:
            return LogZ(*torch.tensor([0.0, 0.0, 0.0, torch.inf], dtype=torch.float64))
        if stage not in self.constants:
            raise ValueError(f"log Z of {stage} finished stages has not been estimated; use log_density")
        return self.constants[stage]

    def get_extra_state(self) -> dict[str, Any]:
        entries = []
        for stage, constant in sorted(self.constants.items()):
            numbers = map(float, vars(constant).values())
            entries.append({"stage": stage, **dict(zip(_STORED, numbers, strict=True))})
        return {"constants": entries}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.constants = {}
        for entry in state["constants"]:
            numbers = [entry[name] for name in _STORED]
            self.constants[entry["stage"]] = LogZ(*torch.tensor(numbers, dtype=torch.float64))
