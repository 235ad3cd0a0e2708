"""A mixture of Gaussians with a density, exact draws and a fit by expectation maximisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lebm.models.encoders import DiagonalGaussian
from lebm.models.priors import Prior
from lebm.samplers.noise import RandomSource, normal, uniform

__all__ = ["GaussianMixture"]

CHUNK = 2**23
"""About how many numbers one pass over rows holds at a time."""


class GaussianMixture(Prior):
    r"""A mixture of Gaussians, :math:`p(z) = \sum_k w_k\, N(z;\, \mu_k, \Sigma_k)`, fitted to encodings.

    Before :meth:`fit` all components are N(0, I), and so the mixture is N(0, I). As the base of an
    :class:`~lebm.models.EnergyPrior` it carries what a mixture can carry, and the energy corrects the rest.

    The fit is expectation maximisation (Dempster, Laird & Rubin 1977) from a k-means++ start (Arthur &
    Vassilvitskii 2007). It takes the same steps on every process that has the same latents and generator.
    Its memory does not grow with the number of latents, apart from one number per latent and component.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        components: number of components; or several numbers, of which :meth:`fit` takes the one with the
            largest log-density on a tenth of the latents, held out.
        covariance: ``"full"``, ``"tied"`` (one full matrix for all components) or ``"diagonal"``.
        floor: what is added to every variance, as a share of the mean variance of the latents.
        max_iterations: largest number of iterations of the fit.
        tolerance: the fit ends when the mean log-density grows by less in one iteration, in nats.

    Attributes:
        fitted: number of components that the last fit used; 0 before the first.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianMixture
        >>> mixture = GaussianMixture(latent_dim=2, components=2)
        >>> z = torch.cat([torch.randn(500, 2) * 0.1 - 3, torch.randn(500, 2) * 0.1 + 3])
        >>> mixture.fit(z, torch.Generator().manual_seed(0))
        >>> mixture.reference(4).shape, mixture.log_density(z).shape, mixture.fitted
        (torch.Size([4, 2]), torch.Size([1000]), 2)
    """

    log_weight: Tensor
    mean: Tensor
    factor: Tensor
    whitener: Tensor

    def __init__(
        self,
        latent_dim: int,
        components: int | Sequence[int] = 50,
        covariance: Literal["full", "tied", "diagonal"] = "full",
        floor: float = 1e-3,
        max_iterations: int = 100,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        self.choices = [components] if isinstance(components, int) else list(components)
        if latent_dim < 1 or not self.choices or min(self.choices) < 1:
            raise ValueError(f"needs latent_dim and components of at least 1, not {latent_dim}, {components}")
        if covariance not in ("full", "tied", "diagonal"):
            raise ValueError(f"covariance must be full, tied or diagonal, not {covariance!r}")
        if not floor > 0 or max_iterations < 1 or not tolerance >= 0:
            raise ValueError(
                f"needs floor > 0, max_iterations >= 1 and tolerance >= 0, not {floor}, {max_iterations},"
                f" {tolerance}"
            )
        self.latent_dim, self.covariance, self.floor = latent_dim, covariance, floor
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.fitted = 0
        count = max(self.choices)
        eye = torch.eye(latent_dim).repeat(count, 1, 1)
        self.register_buffer("log_weight", torch.full((count,), -math.log(count)))
        self.register_buffer("mean", torch.zeros(count, latent_dim))
        self.register_buffer("factor", eye)  # lower triangular L of Sigma = L L^T
        self.register_buffer("whitener", eye.clone())  # its inverse

    @property
    def is_exact(self) -> bool:
        return True

    def energy(self, z: Tensor) -> Tensor:
        return z.new_zeros(z.shape[0])

    def log_density(self, z: Tensor) -> Tensor:
        """The normalised log-density of ``z: (B, latent_dim)`` in nats, shape ``(B,)``."""
        return torch.logsumexp(self.joint(z), dim=1)

    def conditionals(self, z: Tensor) -> DiagonalGaussian | None:
        zeros = torch.zeros_like(z)
        return None if self.fitted else DiagonalGaussian(zeros, zeros)

    def joint(self, z: Tensor) -> Tensor:
        """``log w_k + log N(z; mu_k, Sigma_k)`` in nats, ``(B, components)``; its softmax is ``p(k | z)``."""
        return self._joint(self._whitened(z))

    def state_gradient(self, z: Tensor) -> Tensor:
        """The gradient of :meth:`log_density`, ``(B, latent_dim)``, detached, without autograd."""
        with torch.no_grad():
            white = self._whitened(z)
            share = torch.softmax(self._joint(white), dim=1)
            return -((share.unsqueeze(-1) * white).flatten(1) @ self.whitener.flatten(0, 1))

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """``n`` exact draws, ``(n, latent_dim)``."""
        place: dict[str, Any] = self._place()
        chance = uniform(generator, (n,), **place)
        noise = normal(generator, (n, self.latent_dim), **place)
        cumulative = self.log_weight.double().exp().cumsum(0)
        chosen = torch.searchsorted(cumulative / cumulative[-1], chance.double(), right=True)
        chosen = chosen.clamp(max=len(self.log_weight) - 1)
        size = self._rows(self.latent_dim)
        pairs = zip(chosen.split(size), noise.split(size), strict=True)
        draws = [torch.einsum("nij,nj->ni", self.factor[some], e) + self.mean[some] for some, e in pairs]
        return torch.cat(draws)

    def _whitened(self, z: Tensor) -> Tensor:
        """``L_k^-1 (z - mu_k)``, ``(B, components, latent_dim)``, by one matrix product."""
        shift = torch.einsum("kij,kj->ki", self.whitener, self.mean).flatten()
        return torch.addmm(-shift, z, self.whitener.flatten(0, 1).T).unflatten(1, self.mean.shape)

    def _joint(self, white: Tensor) -> Tensor:
        constant = (
            self.log_weight
            + self.whitener.diagonal(dim1=1, dim2=2).log().sum(dim=1)
            - 0.5 * self.latent_dim * math.log(2 * math.pi)
        )
        return constant - 0.5 * white.square().sum(dim=-1)

    def _rows(self, width: int) -> int:
        """Rows of a pass that holds ``width * latent_dim`` numbers per row."""
        return max(1, CHUNK // (width * self.latent_dim))

    # The fit

    @torch.no_grad()
    def fit(self, z: Tensor, generator: RandomSource = None) -> None:
        """Fit the mixture to latents.

        Args:
            z: ``(N, latent_dim)``, finite, more rows than components.
            generator: source of randomness.

        Raises:
            ValueError: for latents of another shape, too few of them, or values that are not finite.
        """
        if z.dim() != 2 or z.shape[1] != self.latent_dim or not bool(torch.isfinite(z).all()):
            raise ValueError(f"needs finite latents (N, {self.latent_dim}), not {tuple(z.shape)}")
        if len(z) <= max(self.choices):
            raise ValueError(f"{len(z)} latents are too few for {max(self.choices)} components")
        z = z.to(self.mean)
        best = self.choices[0]
        if len(self.choices) > 1:
            order = torch.argsort(uniform(generator, (len(z),), dtype=torch.float64, device=z.device))
            held_out, rest = z[order[: len(z) // 10]], z[order[len(z) // 10 :]]
            found = {}
            for count in self.choices:
                self._fit(rest, count, generator)
                found[count] = self._mean_log_density(held_out)
            best = max(found, key=lambda count: found[count])
        self._fit(z, best, generator)

    def _fit(self, z: Tensor, count: int, generator: RandomSource) -> None:
        # A later fit goes on from the earlier one, which saves most of its iterations.
        start = self._expect(z, count)[0] if self.fitted == count else None
        self.fitted = count
        centre, spread = z.mean(dim=0), z.var(dim=0, unbiased=False).mean()
        floor = self.floor * spread.clamp_min(torch.finfo(z.dtype).tiny)
        z = z - centre  # so that little is lost in E[z z^T] - mu mu^T
        shares = self._k_means(z, count, generator) if start is None else start
        before = -math.inf
        for _ in range(self.max_iterations):
            self._maximise(z, shares, count, floor)
            shares, now = self._expect(z, count)
            if now - before < self.tolerance:
                break
            before = now
        self.mean += centre

    def _k_means(self, z: Tensor, count: int, generator: RandomSource) -> Tensor:
        """Hard shares ``(N, count)`` after a k-means++ start and a few iterations of k-means."""
        first = uniform(generator, (count,), dtype=torch.float64, device=z.device)
        centres, nearest = [], torch.ones(len(z), dtype=torch.float64, device=z.device)
        for chance in first:
            cumulative = nearest.cumsum(0)
            row = torch.searchsorted(cumulative, chance * cumulative[-1], right=True).clamp(max=len(z) - 1)
            centres.append(z[row])
            distance = (z - centres[-1]).square().sum(dim=1).double()
            nearest = distance if len(centres) == 1 else torch.minimum(nearest, distance)
        middle = torch.stack(centres)
        for _ in range(10):
            label = torch.cat([torch.cdist(part, middle).argmin(dim=1) for part in z.split(CHUNK // count)])
            shares = torch.nn.functional.one_hot(label, count).to(z.dtype)
            middle = (shares.T @ z) / shares.sum(dim=0).clamp_min(1.0).unsqueeze(1)
        return shares

    def _expect(self, z: Tensor, count: int) -> tuple[Tensor, float]:
        """``p(k | z)``, ``(N, count)``, and the mean log-density."""
        shares, total = [], torch.zeros((), dtype=torch.float64, device=z.device)
        for part in z.split(self._rows(len(self.mean))):
            joint = self.joint(part)
            total += torch.logsumexp(joint, dim=1).double().sum()
            shares.append(torch.softmax(joint, dim=1)[:, :count])
        return torch.cat(shares), float(total) / len(z)

    def _maximise(self, z: Tensor, shares: Tensor, count: int, floor: Tensor) -> None:
        """The parameters that maximise the expected log-density under ``shares``."""
        weight, first = shares.sum(dim=0).double(), (shares.T @ z).double()
        second = torch.zeros(count, self.latent_dim**2, dtype=torch.float64, device=z.device)
        size = self._rows(self.latent_dim)
        for part, share in zip(z.split(size), shares.split(size), strict=True):
            second += (share.T @ (part.unsqueeze(2) * part.unsqueeze(1)).flatten(1)).double()
        total = weight.clamp_min(1e-6).unsqueeze(1)
        mean = first / total
        moment = second.unflatten(1, (self.latent_dim, self.latent_dim)) / total.unsqueeze(2)
        covariance = moment - mean.unsqueeze(2) * mean.unsqueeze(1)
        if self.covariance == "tied":
            share = (weight / weight.sum())[:, None, None]
            covariance = (covariance * share).sum(dim=0).expand_as(covariance)
        elif self.covariance == "diagonal":
            covariance = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
        eye = torch.eye(self.latent_dim, dtype=torch.float64, device=z.device)
        factor = torch.linalg.cholesky(covariance + floor.double() * eye)
        self.log_weight.fill_(-math.inf)
        self.log_weight[:count] = (weight / weight.sum()).log().to(z.dtype)
        self.mean[:count], self.factor[:count] = mean.to(z.dtype), factor.to(z.dtype)
        self.whitener[:count] = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False).to(
            z.dtype
        )

    def _mean_log_density(self, z: Tensor) -> float:
        return self._expect(z, 0)[1]

    # Extra state, not a buffer: an average of weights must not average the number of components.

    def get_extra_state(self) -> dict[str, int]:
        return {"fitted": self.fitted}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.fitted = int(state["fitted"])
