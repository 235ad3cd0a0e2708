"""Energies: modules that map a batch to one number per sample, low where data are likely."""

from collections.abc import Sequence

from torch import Tensor, nn

from lebm.component import Component
from lebm.models.layers import mlp


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
            raise ValueError(f"needs classes >= 2 and label_weight >= 0, not {classes} and {label_weight}")
        self.latent_dim = latent_dim
        self.classes = classes
        self.label_weight = label_weight
        self.net = mlp([latent_dim, *hidden, classes], activation)

    def logits(self, z: Tensor) -> Tensor:
        """Return :math:`f(z)`, the logits of :math:`p(y | z)`, ``(B, classes)``."""
        return self.net(z)

    def forward(self, z: Tensor) -> Tensor:
        return -self.logits(z).logsumexp(dim=1)
