"""Energies: modules that map a batch to one number per sample, low where data are likely."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.layers import mlp
from lebm.samplers.base import log_density_gradient

_aten = torch.ops.aten

# The kernels of autograd, so that results are equal. Arguments: the gradient after the layer, the input of
# the layer, its output, and the layer.
_BACKWARD: dict[type[nn.Module], Callable[[Tensor, Tensor, Tensor, nn.Module], Tensor]] = {
    nn.GELU: lambda slope, seen, made, layer: _aten.gelu_backward(slope, seen, approximate=layer.approximate),
    nn.LeakyReLU: lambda slope, seen, made, layer: _aten.leaky_relu_backward(
        slope, seen, layer.negative_slope, False
    ),
    nn.ReLU: lambda slope, seen, made, layer: _aten.threshold_backward(slope, made, 0),
    nn.SiLU: lambda slope, seen, made, layer: _aten.silu_backward(slope, seen),
    nn.Softplus: lambda slope, seen, made, layer: _aten.softplus_backward(
        slope, seen, layer.beta, layer.threshold
    ),
    nn.Tanh: lambda slope, seen, made, layer: _aten.tanh_backward(slope, made),
}


def input_gradient(net: nn.Sequential, state: Tensor) -> Tensor | None:
    """Return the gradient ``(B, d)`` of the sum of ``net(state)`` at ``state: (B, d)``, detached.

    For small networks this is a third faster than autograd. The result is ``None`` if it could differ from
    autograd: with layers other than plain linear layers and known activations, hooks, mixed precision, or a
    state whose dtype differs from the weights.
    """
    if state.is_meta or torch.is_autocast_enabled(state.device.type):  # not supported on the meta device
        return None
    if any(not _plain(layer, state) for layer in net):
        return None
    with torch.no_grad():
        trace, value = [], state
        for layer in net:
            seen, value = value, layer(value)
            trace.append((layer, seen, value))
        slope = torch.ones_like(value)
        for layer, seen, made in reversed(trace):
            slope = (
                slope @ layer.weight
                if isinstance(layer, nn.Linear)
                else _BACKWARD[type(layer)](slope, seen, made, layer)
            )
    return slope


def _plain(layer: nn.Module, state: Tensor) -> bool:
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return False
    if type(layer) is nn.Linear:  # a parametrised layer may change its weight at every read
        return layer.weight.dtype == state.dtype
    return type(layer) in _BACKWARD and not getattr(layer, "inplace", False)


class Energy(nn.Module, Component):
    """Base class of the energies: ``energy(z: (B, *event)) -> (B,)``.

    An energy may be any ``nn.Module`` of this form; a subclass of this class can be rebuilt from checkpoints.

    Attributes:
        latent_dim: number of coordinates of a flat latent, or ``None`` if the energy takes any event.

    Example:
        >>> import torch
        >>> from lebm.models import Energy
        >>> class Quadratic(Energy):
        ...     def forward(self, z):
        ...         return 0.5 * z.square().sum(dim=1)
        >>> Quadratic()(torch.tensor([[3.0, 4.0]]))
        tensor([12.5000])
    """

    latent_dim: int | None = None


class ModuleEnergy(Energy):
    """An energy that wraps a module ``(B, d) -> (B,)`` or ``(B, 1)``.

    Args:
        module: the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lebm.models import ModuleEnergy
        >>> ModuleEnergy(nn.Linear(3, 1))(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        energy = self.module(z)
        return energy.squeeze(1) if energy.dim() == 2 else energy


class MLPEnergy(Energy):
    """A fully connected energy on a flat latent (Pang et al. 2020, supplement; they use 200-200-1).

    Args:
        latent_dim: number of latent coordinates, at least 1.
        hidden: widths of the hidden layers.
        activation: ``"gelu"`` (the released scripts), ``"leaky_relu"`` (slope 0.2), ``"leaky_relu_0.01"``,
            ``"relu"``, ``"silu"``, ``"softplus"`` or ``"tanh"``.
        output_bias: whether the last layer has a bias. A constant has exactly zero gradient in a contrastive
            loss, so use a bias only if the constant is learned (noise-contrastive estimation).
        spectral_norm: whether the Lipschitz constant of every layer is bounded by 1, as in the released
            hierarchical code.

    Raises:
        ValueError: for a width below 1 or an unknown activation.

    Example:
        >>> import torch
        >>> from lebm.models import MLPEnergy
        >>> energy = MLPEnergy(latent_dim=8, hidden=[32, 32])
        >>> energy(torch.zeros(5, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "gelu",
        output_bias: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.net = mlp([latent_dim, *hidden, 1], activation, output_bias, spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).squeeze(-1)

    def state_gradient(self, state: Tensor) -> Tensor:
        """Return the gradient ``(B, d)`` of the energy with respect to ``state``, detached.

        It equals the gradient of autograd and is a third faster for 200-200-1 with batches of 100.
        """
        known = input_gradient(self.net, state) if type(self).forward is MLPEnergy.forward else None
        return log_density_gradient(self, state)[1] if known is None else known


class ClassEnergy(Energy):
    r"""The energy of a joint density of latents and classes (Pang & Wu 2021, eq. 4 and 5).

    With one network :math:`f: z \mapsto (f_1, \dots, f_K)`,

    .. math:: p(y, z) \propto e^{f_y(z)} p_0(z), \qquad E(z) = -\log \sum_y e^{f_y(z)}, \qquad
        p(y \mid z) = \operatorname{softmax}(f(z))_y.

    The module computes :math:`E(z)`, the energy of the marginal, so it works with every prior and sampler.
    The posterior of the class is exact, so ``ClassCondition(energy.logits, y, energy.classes)`` needs no
    other classifier. :class:`~lebm.estimators.LatentMLE` adds the cross-entropy of rows whose ``label`` is
    not negative.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        classes: K, at least 2.
        hidden: widths of the hidden layers.
        activation: name of an activation, see :class:`MLPEnergy`.
        label_weight: weight of the mean cross-entropy of labelled rows in the loss, at least 0.

    Raises:
        ValueError: for a width below 1, fewer than two classes, or a negative weight.

    Example:
        >>> import torch
        >>> from lebm.models import ClassEnergy
        >>> energy, z = ClassEnergy(latent_dim=8, classes=10, hidden=[32]), torch.zeros(5, 8)
        >>> energy(z).shape, energy.logits(z).shape
        (torch.Size([5]), torch.Size([5, 10]))
    """

    def __init__(
        self,
        latent_dim: int,
        classes: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "gelu",
        label_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if classes < 2 or label_weight < 0:
            raise ValueError(
                f"classes must be at least 2 and label_weight at least 0, not {classes} and {label_weight}"
            )
        self.latent_dim = latent_dim
        self.classes = classes
        self.label_weight = label_weight
        self.net = mlp([latent_dim, *hidden, classes], activation)

    def logits(self, z: Tensor) -> Tensor:
        """Return :math:`f(z)`, the logits of :math:`p(y | z)`, ``(B, classes)``."""
        return self.net(z)

    def forward(self, z: Tensor) -> Tensor:
        return -self.logits(z).logsumexp(dim=1)
