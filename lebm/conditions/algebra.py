"""Conditions on latents and their algebra: and, or, not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from operator import and_, invert, mul, or_
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lebm.models.likelihoods import Likelihood


class Condition(nn.Module, ABC):
    r"""A factor that multiplies the density of latents: ``condition(z: (B, d)) -> (B,)`` is its logarithm.

    Latents given a condition c have the density :math:`p(z)\, e^{c(z)} / Z`. Conditions compose:

    ==========  ================================================  ==========================================
    expression  log-factor                                        meaning
    ==========  ================================================  ==========================================
    ``a & b``   :math:`a + b`                                     both, independent given z
    ``a | b``   :math:`\log(e^a + e^b)`                           either: a mixture of ``p(z) e^a`` and
                                                                  ``p(z) e^b``, each with its own mass
    ``~a``      :math:`\log(1 - e^a)` if ``a.is_probability``     a does not happen
    ``~a``      :math:`-a` otherwise                              the density is divided by the factor
    ``w * a``   :math:`w a`                                       a to the power w: for a probability, w
                                                                  independent tests accept
    ``~(a|b)``  log-factor of ``~a & ~b``                         neither
    ==========  ================================================  ==========================================

    ``~~a`` is ``a``, except for ``a | b``, whose factor is not a probability. The single conditions of lebm
    are probabilities, so the density given their negation can be normalised. The quotient of the other case
    may have no normalising constant.

    Attributes:
        is_probability: whether :math:`e^{c(z)}` is a probability, in [0, 1].
        rows: number of rows of data inside the condition. Each of them belongs to a group of ``n / rows``
            neighbours among n latents.

    Example:
        >>> import torch
        >>> from lebm.conditions import Near
        >>> left, right = Near(torch.tensor([[-1.0]]), sigma=1.0), Near(torch.tensor([[1.0]]), sigma=1.0)
        >>> z = torch.zeros(1, 1)
        >>> (left & right)(z), (left | right)(z), (~left)(z)
        (tensor([-1.]), tensor([0.1931]), tensor([-0.9328]))
    """

    is_probability: bool = False
    rows: int = 1

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Return the log-factor ``(B,)`` of ``z: (B, d)``."""

    def met(self, z: Tensor) -> Tensor:
        """Return a mask ``(B,)`` of the latents ``(B, d)`` whose factor is above 1/2.

        It is true for factors that are not probabilities. The mask of a composition is composed of the masks
        of its parts.
        """
        with torch.no_grad():
            return self(z) > (math.log(0.5) if self.is_probability else -math.inf)

    def on(self, likelihood: Likelihood) -> Condition:
        """Return the condition for a model with this likelihood, which only :class:`Observed` needs."""
        return self

    def __and__(self, other: Given) -> Condition:
        b = as_condition(other)
        both = self.is_probability and b.is_probability
        return _Composed(and_, torch.add, torch.logical_and, self, b, is_probability=both)

    def __or__(self, other: Given) -> Condition:
        parts = self, as_condition(other)
        return _Composed(or_, torch.logaddexp, torch.logical_or, *parts, is_probability=False)

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> Condition:
        if self.is_probability:
            return _Composed(invert, _complement, torch.logical_not, self, is_probability=True)
        return _Composed(invert, torch.neg, torch.ones_like, self, is_probability=False)

    def __rmul__(self, weight: float) -> Condition:
        if not weight > 0:
            raise ValueError(f"the weight of a condition must be positive, not {weight}")
        power = partial(mul, float(weight))
        return _Composed(power, power, torch.clone, self, is_probability=self.is_probability)

    __mul__ = __rmul__


Given: TypeAlias = Condition | Callable[[Tensor], Tensor]
"""A condition, or any function from latents ``(B, d)`` to log-factors ``(B,)``."""


class LogFactor(Condition):
    """A condition that wraps any function.

    Args:
        log_factor: log-factor ``(B, d) -> (B,)``.
        is_probability: whether the log-factor is the logarithm of a probability.
    """

    def __init__(self, log_factor: Callable[[Tensor], Tensor], is_probability: bool = False) -> None:
        super().__init__()
        self.log_factor = log_factor
        self.is_probability = is_probability

    def forward(self, z: Tensor) -> Tensor:
        return self.log_factor(z)


def as_condition(given: Given) -> Condition:
    """Return a condition unchanged, and wrap any other function."""
    return given if isinstance(given, Condition) else LogFactor(given)


class _Composed(Condition):
    """An operator on conditions, with the functions of their log-factors and of their masks."""

    def __init__(
        self,
        operator: Callable[..., Condition],
        factor: Callable[..., Tensor],
        mask: Callable[..., Tensor],
        *parts: Condition,
        is_probability: bool,
    ) -> None:
        super().__init__()
        self.operator, self.factor, self.mask = operator, factor, mask
        self.parts: Any = nn.ModuleList(parts)
        self.is_probability = is_probability
        self.rows, *others = sorted({part.rows for part in parts}, reverse=True)
        if others not in ([], [1]):
            raise ValueError(f"conditions on {others[0]} and on {self.rows} rows of data cannot be combined")

    def forward(self, z: Tensor) -> Tensor:
        return self.factor(*(part(z) for part in self.parts))

    def met(self, z: Tensor) -> Tensor:
        return self.mask(*(part.met(z) for part in self.parts))

    def on(self, likelihood: Likelihood) -> Condition:
        return self.operator(*(part.on(likelihood) for part in self.parts))

    def __invert__(self) -> Condition:
        if self.operator is or_:
            return ~self.parts[0] & ~self.parts[1]
        return self.parts[0] if self.operator is invert else super().__invert__()


def _complement(value: Tensor) -> Tensor:
    """Return ``log(1 - e^value)``, finite where the factor is 1."""
    return (-torch.expm1(value.clamp(max=-torch.finfo(value.dtype).eps))).log()


class _Kernel(Condition):
    """A Gaussian kernel of the residuals of data, one row of data per group of latents."""

    is_probability = True
    data: Tensor  # (rows, *event)
    known: Tensor  # mask of the data, of the same shape
    noise: float

    def seen(self, z: Tensor) -> Tensor:
        """Return what the data would be without noise, ``(B, *event)``."""
        return z

    def _squares(self, z: Tensor) -> Tensor:
        """Return the sums of squared residuals in units of the noise, ``(B,)``."""
        seen = self.seen(z)
        error = (_spread(self.data, z) - seen) * _spread(self.known, z)
        return (error.flatten(1) / self.noise).square().sum(dim=1)

    def forward(self, z: Tensor) -> Tensor:
        return -0.5 * self._squares(z)

    def met(self, z: Tensor) -> Tensor:
        """Return whether noise explains the sum of squares: four standard deviations of chi squared."""
        size = _spread(self.known.flatten(1).sum(dim=1), z)
        with torch.no_grad():
            return self._squares(z) <= size + 4 * (2 * size).sqrt()


class Near(_Kernel):
    r"""Latents near a given latent: the factor :math:`\exp(-|z - z_0|^2 / 2 \sigma^2)`.

    The factor is a probability, so ``~Near(z0)`` avoids the neighbourhood of :math:`z_0`. For images near an
    image use :class:`Observed` without a mask.

    Args:
        z: latent :math:`z_0`, ``(d,)``, or ``(B, d)`` for one latent per group.
        sigma: tolerance in the units of the latents, positive.

    Raises:
        ValueError: if ``sigma`` is not positive.
    """

    def __init__(self, z: Tensor, sigma: float = 1.0) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        self.register_buffer("data", torch.atleast_2d(z.detach()))
        self.register_buffer("known", torch.ones_like(self.data))
        self.noise, self.rows = float(sigma), len(self.data)


class Observed(_Kernel):
    r"""Latents whose decoded observation agrees with a partial or noisy observation.

    The factor is :math:`\exp(-|m (x - A g(z))|^2 / 2 \sigma^2)`, the likelihood of
    :math:`x = A g(z) + N(0, \sigma^2)` at the entries where the mask m is 1, up to its constant. It gives
    inpainting with a mask, denoising without a mask, and super-resolution with a linear ``operator`` such as
    average pooling.

    Args:
        x: observation ``(*event)``, or ``(B, *event)`` for one observation per group of latents, in the shape
            of the operator's output.
        mask: mask, true (or 1) where ``x`` is known, which broadcasts to the shape of ``x``; everywhere if
            ``None``.
        sigma: standard deviation of the noise, in the units of ``x``. If ``None``, the ``sigma`` of the
            model's likelihood, so that latents follow the model's own posterior.
        operator: operator ``A``, ``(B, *decoded) -> (B, *event)``; the identity if ``None``.
        likelihood: likelihood with the generator ``g``, which ``model.sample(n, given=...)`` sets.

    Raises:
        ValueError: if ``sigma`` is not positive, or is ``None`` and the likelihood has no ``sigma``.

    Example:
        >>> import torch
        >>> from lebm.conditions import Observed
        >>> from lebm.models import GaussianLikelihood, IdentityGenerator
        >>> likelihood = GaussianLikelihood(IdentityGenerator(latent_dim=2), sigma=1.0)
        >>> seen = Observed(torch.tensor([1.0, 5.0]), mask=torch.tensor([1, 0]), likelihood=likelihood)
        >>> seen(torch.zeros(1, 2))  # the second coordinate is hidden
        tensor([-0.5000])
    """

    def __init__(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        sigma: float | None = None,
        operator: Callable[[Tensor], Tensor] | None = None,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        if sigma is not None and not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        self.x, self.mask, self.sigma, self.operator = x.detach(), mask, sigma, operator
        # Not registered as a submodule, because it belongs to the model.
        object.__setattr__(self, "likelihood", likelihood)
        if likelihood is None:
            return
        z = next(likelihood.parameters(), self.x).new_zeros(1, likelihood.latent_dim)
        with torch.no_grad():
            event = self.seen(z).shape[1:]
        if self.x.shape[-len(event) :] != event or self.x.dim() > len(event) + 1:
            raise ValueError(
                f"the observation x has the shape {tuple(self.x.shape)}, but this model decodes to"
                f" {tuple(event)}, or (B, {', '.join(map(str, event))})"
            )
        self.data = self.x.reshape(-1, *event).to(z)
        known = self.data.new_ones(()) if mask is None else mask.to(self.data)
        self.known, self.rows = known.expand_as(self.data), len(self.data)
        self.data = self.data.where(self.known != 0, 0.0)  # hidden values may be NaN
        noise = getattr(likelihood, "sigma", None) if sigma is None else sigma
        if noise is None:
            raise ValueError(f"Observed needs a sigma: a {type(likelihood).__name__} has none")
        self.noise = float(noise)

    likelihood: Any

    def on(self, likelihood: Likelihood) -> Condition:
        return Observed(self.x, self.mask, self.sigma, self.operator, likelihood)

    def seen(self, z: Tensor) -> Tensor:
        if self.likelihood is None:
            raise ValueError("Observed needs a likelihood; model.sample(n, given=...) sets its own")
        x = self.likelihood.mean(z)
        return x if self.operator is None else self.operator(x)


def _spread(data: Tensor, z: Tensor) -> Tensor:
    """Repeat each row of data for its group of latents: ``(rows, ...)`` to ``(B, ...)``."""
    if len(data) == 1:
        return data.expand(len(z), *data.shape[1:])
    if len(z) % len(data):
        raise ValueError(f"{len(z)} latents are not a multiple of {len(data)} rows of data")
    return data.repeat_interleave(len(z) // len(data), dim=0)
