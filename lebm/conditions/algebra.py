"""Conditions on latents and their algebra: and, or, not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lebm.models.likelihoods import Likelihood


class Condition(nn.Module, ABC):
    r"""A factor that multiplies the density of latents: ``condition(z: (B, d)) -> (B,)`` is its logarithm.

    Draws given a condition c have the density :math:`p(z)\, e^{c(z)} / Z`. Conditions compose:

    ==========  ================================================  ==========================================
    expression  log-factor                                        meaning
    ==========  ================================================  ==========================================
    ``a & b``   :math:`a + b`                                     both, independent given z
    ``a | b``   :math:`\log(e^a + e^b)`                           either: a mixture of ``p(z) e^a`` and
                                                                  ``p(z) e^b``, each with its own mass
    ``~a``      :math:`\log(1 - e^a)` if ``a.is_probability``     a does not happen
    ``~a``      :math:`-a` otherwise                              the density is divided by the factor
    ``w * a``   :math:`w a`                                       a, w times over: for a probability, w
                                                                  independent looks agree
    ``~(a|b)``  that of ``~a & ~b``                               neither
    ==========  ================================================  ==========================================

    ``~~a`` is ``a``. All conditions of lebm are probabilities, and so their negation always leaves a density
    that can be normalised. The quotient of the other case may have no normalising constant.

    Attributes:
        is_probability: whether :math:`e^{c(z)}` is a probability, in [0, 1].
        rows: number of rows of data inside; the n draws are then ``rows`` groups of ``n / rows`` neighbours,
            one group per row. 1 if all draws have the same condition.

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
        """The log-factor ``(B,)`` of ``z: (B, d)``."""

    def met(self, z: Tensor) -> Tensor:
        """Which latents ``(B, d)`` meet the condition, ``(B,)`` of ``bool``: whether its factor is above 1/2.

        Always true for a factor that is not a probability.
        """
        with torch.no_grad():
            return self(z) > (math.log(0.5) if self.is_probability else -math.inf)

    def on(self, likelihood: Likelihood) -> Condition:
        """The condition for latents of a model with this likelihood; only :class:`Observed` needs one."""
        return self

    def __and__(self, other: Given) -> Condition:
        return Both(self, as_condition(other))

    def __or__(self, other: Given) -> Condition:
        return Either(self, as_condition(other))

    def __invert__(self) -> Condition:
        return Not(self)

    def __rmul__(self, weight: float) -> Condition:
        return Power(self, weight)


Given: TypeAlias = Condition | Callable[[Tensor], Tensor]
"""A condition, or any function from latents ``(B, d)`` to log-factors ``(B,)``."""


class LogFactor(Condition):
    """Any function as a condition.

    Args:
        log_factor: ``(B, d) -> (B,)``.
        is_probability: whether it is the logarithm of a probability.
    """

    def __init__(self, log_factor: Callable[[Tensor], Tensor], is_probability: bool = False) -> None:
        super().__init__()
        self.log_factor = log_factor
        self.is_probability = is_probability

    def forward(self, z: Tensor) -> Tensor:
        return self.log_factor(z)


class _One(Condition):
    """A condition made of one other, with the same rows of data."""

    def __init__(self, a: Condition) -> None:
        super().__init__()
        self.a, self.is_probability, self.rows = a, a.is_probability, a.rows


class At(_One):
    """A condition on a function of the state, such as the latents that belong to the noise of a hierarchy.

    Args:
        a: the condition on latents.
        latents: from states ``(B, s)`` to latents ``(B, d)``.
    """

    def __init__(self, a: Condition, latents: Callable[[Tensor], Tensor]) -> None:
        super().__init__(a)
        self.latents = latents

    def forward(self, z: Tensor) -> Tensor:
        return self.a(self.latents(z))

    def met(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.a.met(self.latents(z))


def as_condition(given: Given) -> Condition:
    """A condition itself, or a function as one."""
    return given if isinstance(given, Condition) else LogFactor(given)


class _Pair(Condition):
    def __init__(self, a: Condition, b: Condition) -> None:
        super().__init__()
        self.a, self.b = a, b
        if 1 not in (a.rows, b.rows) and a.rows != b.rows:
            raise ValueError(f"conditions on {a.rows} and on {b.rows} rows of data cannot be combined")
        self.rows = max(a.rows, b.rows)

    def on(self, likelihood: Likelihood) -> Condition:
        return type(self)(self.a.on(likelihood), self.b.on(likelihood))


class Both(_Pair):
    """The condition ``a & b``: the sum of two log-factors."""

    def __init__(self, a: Condition, b: Condition) -> None:
        super().__init__(a, b)
        self.is_probability = a.is_probability and b.is_probability

    def forward(self, z: Tensor) -> Tensor:
        return self.a(z) + self.b(z)

    def met(self, z: Tensor) -> Tensor:
        return self.a.met(z) & self.b.met(z)


class Either(_Pair):
    """The condition ``a | b``: the log-sum-exp of two log-factors. It is at most 2 and not a probability."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.logaddexp(self.a(z), self.b(z))

    def met(self, z: Tensor) -> Tensor:
        return self.a.met(z) | self.b.met(z)

    def __invert__(self) -> Condition:
        return ~self.a & ~self.b


class Not(_One):
    """The condition ``~a``, see :class:`Condition`."""

    def forward(self, z: Tensor) -> Tensor:
        value = self.a(z)
        if not self.is_probability:
            return -value
        return (-torch.expm1(value.clamp(max=-torch.finfo(value.dtype).eps))).log()

    def met(self, z: Tensor) -> Tensor:
        return ~self.a.met(z) if self.is_probability else super().met(z)

    def on(self, likelihood: Likelihood) -> Condition:
        return ~self.a.on(likelihood)

    def __invert__(self) -> Condition:
        return self.a


class Power(_One):
    """The condition ``weight * a``: the factor to a power.

    Args:
        a: the condition.
        weight: positive; above 1 the condition is sharper.

    Raises:
        ValueError: if ``weight`` is not positive.
    """

    def __init__(self, a: Condition, weight: float) -> None:
        super().__init__(a)
        if not weight > 0:
            raise ValueError(f"the weight of a condition must be positive, not {weight}")
        self.weight = float(weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * self.a(z)

    def met(self, z: Tensor) -> Tensor:
        return self.a.met(z)

    def on(self, likelihood: Likelihood) -> Condition:
        return self.weight * self.a.on(likelihood)


class _Kernel(Condition):
    """A Gaussian kernel ``-|r|^2 / (2 sigma^2)`` of residuals, one row of data per group of draws."""

    is_probability = True

    @abstractmethod
    def residual(self, z: Tensor) -> Tensor:
        """Residuals in units of sigma, ``(B, size)``; a coordinate that does not count is 0."""

    @abstractmethod
    def size(self) -> Tensor:
        """Coordinates that count, ``(rows,)``."""

    def forward(self, z: Tensor) -> Tensor:
        return -0.5 * self.residual(z).square().sum(dim=1)

    def met(self, z: Tensor) -> Tensor:
        """Whether the sum of squares is one that noise explains: four standard deviations of chi squared."""
        size = _spread(self.size(), z)
        with torch.no_grad():
            return self.residual(z).square().sum(dim=1) <= size + 4 * (2 * size).sqrt()


class Near(_Kernel):
    r"""Latents near a given latent: the factor :math:`\exp(-|z - z_0|^2 / 2 \sigma^2)`.

    That is the probability that a test with a Gaussian tolerance accepts, and so ``~Near(z0)`` keeps away
    from :math:`z_0`. For images near an image give :class:`Observed` without a mask.

    Args:
        z: :math:`z_0`, ``(d,)``, or ``(B, d)`` for one per group of draws.
        sigma: tolerance in the units of the latents, positive.

    Raises:
        ValueError: if ``sigma`` is not positive.
    """

    def __init__(self, z: Tensor, sigma: float = 1.0) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        self.register_buffer("centre", torch.atleast_2d(z.detach()))
        self.sigma = float(sigma)
        self.rows = len(self.centre)  # type: ignore[arg-type]

    centre: Tensor

    def residual(self, z: Tensor) -> Tensor:
        return (z - _spread(self.centre, z)) / self.sigma

    def size(self) -> Tensor:
        return self.centre.new_full((self.rows,), self.centre.shape[1])


class Observed(_Kernel):
    r"""Latents whose decoded observation agrees with what was observed of it.

    The factor is :math:`\exp(-|m (x - A g(z))|^2 / 2 \sigma^2)`, the likelihood of :math:`x = A g(z) +
    N(0, \sigma^2)` at the entries where the mask m is 1, up to its constant. A mask makes inpainting of it,
    no mask denoising, and a linear ``operator`` such as average pooling super-resolution.

    Args:
        x: what was observed: ``(*event)``, or ``(B, *event)`` for one observation per group of draws. The
            event is that of the operator's output.
        mask: true (or 1) where ``x`` is known; any shape that broadcasts to that of ``x``. All of it if
            ``None``.
        sigma: standard deviation of the noise, in the units of ``x``. If ``None``, that of the model's
            likelihood; the draws are then those of the model's own posterior.
        operator: ``A``, ``(B, *decoded) -> (B, *event)``; the identity if ``None``.
        likelihood: with the generator ``g``. ``model.sample(n, given=...)`` gives its own.

    Raises:
        ValueError: if ``sigma`` is not positive, or the likelihood has no ``sigma`` and none is given.

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
        # Not as a module of this one: it belongs to the model.
        object.__setattr__(self, "likelihood", likelihood)
        if likelihood is not None:
            self._place(likelihood)

    likelihood: Any

    def _place(self, likelihood: Likelihood) -> None:
        z = next(likelihood.parameters(), self.x).new_zeros(1, likelihood.latent_dim)
        with torch.no_grad():
            event = self._seen(z).shape[1:]
        if self.x.shape[-len(event) :] != event or self.x.dim() > len(event) + 1:
            raise ValueError(
                f"what was observed has the shape {tuple(self.x.shape)}, but this model decodes to"
                f" {tuple(event)}, or (B, {', '.join(map(str, event))})"
            )
        x = self.x.reshape(-1, *event).to(z)
        known = x.new_ones(()) if self.mask is None else self.mask.to(x)
        self.data, self.known, self.rows = x, known.expand_as(x), len(x)
        noise = getattr(likelihood, "sigma", None) if self.sigma is None else self.sigma
        if noise is None:
            raise ValueError(f"Observed needs a sigma: a {type(likelihood).__name__} has none")
        self.noise = float(noise)

    def on(self, likelihood: Likelihood) -> Condition:
        return Observed(self.x, self.mask, self.sigma, self.operator, likelihood)

    def _seen(self, z: Tensor) -> Tensor:
        x = self.likelihood.mean(z)
        return x if self.operator is None else self.operator(x)

    def residual(self, z: Tensor) -> Tensor:
        if self.likelihood is None:
            raise ValueError(
                "Observed needs a likelihood; model.sample(n, given=...) gives that of the model"
            )
        error = (_spread(self.data, z) - self._seen(z)) * _spread(self.known, z)
        return error.flatten(1) / self.noise

    def size(self) -> Tensor:
        return self.known.flatten(1).sum(dim=1)


def _spread(data: Tensor, z: Tensor) -> Tensor:
    """Rows of data, each repeated for its group of the latents: ``(rows, ...)`` to ``(B, ...)``."""
    if len(data) == 1:
        return data.expand(len(z), *data.shape[1:])
    if len(z) % len(data):
        raise ValueError(f"{len(z)} draws are not a multiple of {len(data)} rows of data")
    return data.repeat_interleave(len(z) // len(data), dim=0)
