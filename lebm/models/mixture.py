"""A mixture of Gaussians with a density, exact samples and a fit by expectation maximisation."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from lebm.models.encoders import DiagonalGaussian
from lebm.models.layers import check_choice
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import RandomSource, normal, uniform

CHUNK = 2**21
"""Approximate number of values per pass over rows, which fits into the cache of a CPU."""
NO_WEIGHT = -1e4
"""Logarithm of a weight of zero: finite, because an average of infinite values is NaN."""
SHARE_DRAWS = 4096  # samples per component whose mean is a share
MAX_ITERATIONS = 100
TOLERANCE = 1e-3
"""Smallest increase of the mean log-density per iteration, in nats, below which a fit ends."""


class GaussianMixture(Prior):
    r"""A mixture of Gaussians, :math:`p(z) = \sum_k w_k\, N(z;\, \mu_k, \Sigma_k)`, fitted to encodings.

    Before :meth:`fit` the mixture is N(0, I). As the base of an :class:`~lebm.models.EnergyPrior` it is a
    fitted reference that the energy corrects.

    The fit is expectation maximisation (Dempster, Laird & Rubin 1977) from a k-means++ start (Arthur &
    Vassilvitskii 2007). The same latents and generator give the same mixture.

    Time and memory of a fit are proportional to the number of latents: 100,000 latents of 64 coordinates and
    50 full components take 3 s for the start, 2 s per iteration and 0.13 GB on one CPU thread.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        components: number of components; or several numbers, of which :meth:`fit` selects the one with the
            largest log-density on a held-out tenth of the latents. A fit uses at most one component per ten
            latents, so that a recipe also works with few data.
        covariance: ``"full"``, ``"tied"`` (one full matrix for all components) or ``"diagonal"``.
        floor: value added to every variance, as a share of the mean variance of the latents.

    Attributes:
        fitted: number of components of the last fit; 0 before the first fit.

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

    former = {"max_iterations": 100, "tolerance": 1e-3}
    is_exact = True
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
    ) -> None:
        super().__init__()
        self.choices = [components] if isinstance(components, int) else list(components)
        if latent_dim < 1 or not self.choices or min(self.choices) < 1:
            raise ValueError(f"needs latent_dim and components of at least 1, not {latent_dim}, {components}")
        check_choice("covariance", covariance, ("full", "tied", "diagonal"))
        if not floor > 0:
            raise ValueError(f"floor must be positive, not {floor}")
        self.latent_dim, self.covariance, self.floor = latent_dim, covariance, floor
        self.fitted = 0
        count = max(self.choices)
        eye = torch.eye(latent_dim).repeat(count, 1, 1)
        self.register_buffer("log_weight", torch.full((count,), -math.log(count)))
        self.register_buffer("mean", torch.zeros(count, latent_dim))
        self.register_buffer("factor", eye)  # lower triangular L of Sigma = L L^T
        self.register_buffer("whitener", eye.clone())  # its inverse

    def log_density(self, z: Tensor) -> Tensor:
        """Return the normalised log-density of ``z: (B, latent_dim)`` in nats, ``(B,)``.

        It is computed in the precision of the mixture even under autocast, because half precision rounds a
        latent by more than the width of a thin component.
        """
        return torch.logsumexp(self.joint(z), dim=1)

    def conditionals(self, z: Tensor) -> DiagonalGaussian | None:
        zeros = torch.zeros_like(z)
        return None if self.fitted else DiagonalGaussian(zeros, zeros)

    def joint(self, z: Tensor) -> Tensor:
        """Return ``log w_k + log N(z; mu_k, Sigma_k)`` in nats, ``(B, fitted)``; its softmax is ``p(k | z)``.

        Before the first fit the number of columns is the largest number of components.
        """
        return torch.cat([self._joint(self._whitened(part)) for part in z.split(self._rows(self._count))])

    def state_gradient(self, z: Tensor) -> Tensor:
        """Return the gradient of :meth:`log_density`, ``(B, latent_dim)``, detached, without autograd."""
        slopes = []
        with torch.no_grad(), _full_precision(z):
            for part in z.split(self._rows(self._count)):
                white = self._whitened(part)
                white *= torch.softmax(self._joint(white), dim=1).unsqueeze(-1)
                slopes.append(white.flatten(1) @ self.whitener[: self._count].flatten(0, 1))
            return torch.cat(slopes).neg_().to(z.dtype)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """Draw ``n`` exact samples, ``(n, latent_dim)``."""
        device = self.mean.device
        chance = uniform(generator, (n,), dtype=torch.float64, device=device)
        noise = normal(generator, (n, self.latent_dim), dtype=self.mean.dtype, device=device)
        cumulative = self.log_weight.double().exp().cumsum(0)
        chosen = torch.searchsorted(cumulative, chance * cumulative[-1], right=True)
        chosen = chosen.clamp(max=len(self.log_weight) - 1)
        size = self._rows(self.latent_dim)
        pairs = zip(chosen.split(size), noise.split(size), strict=True)
        with _full_precision(noise):
            draws = [torch.einsum("nij,nj->ni", self.factor[some], e) + self.mean[some] for some, e in pairs]
        return torch.cat(draws)

    @property
    def _count(self) -> int:
        """Number of components in use; later components have zero weight."""
        return self.fitted or len(self.log_weight)

    def _whitened(self, z: Tensor) -> Tensor:
        """Return ``L_k^-1 (z - mu_k)``, ``(B, fitted, latent_dim)``, by one matrix product."""
        whitener, mean = self.whitener[: self._count], self.mean[: self._count]
        with _full_precision(z):
            shift = torch.einsum("kij,kj->ki", whitener, mean).flatten()
            white = torch.addmm(-shift, z.to(mean.dtype), whitener.flatten(0, 1).T)
        return white.unflatten(1, mean.shape)

    def _joint(self, white: Tensor) -> Tensor:
        constant = (
            self.log_weight[: self._count]
            + self.whitener[: self._count].diagonal(dim1=1, dim2=2).log().sum(dim=1)
            - 0.5 * self.latent_dim * math.log(2 * math.pi)
        )
        return constant - 0.5 * white.square().sum(dim=-1)

    def _rows(self, width: int) -> int:
        """Return the number of rows of a pass with ``width * latent_dim`` values per row."""
        return max(1, CHUNK // (width * self.latent_dim))

    @torch.no_grad()
    def keep_shares(self, before: LogDensity, after: LogDensity, generator: RandomSource = None) -> None:
        r"""Change the weights so that ``p(z) exp(after(z))`` has the shares of ``p(z) exp(before(z))``.

        The share of a component in :math:`p(z) \exp f(z)` is proportional to
        :math:`w_k\, E_{N(\mu_k, \Sigma_k)}[\exp f(z)]`. A weight changes by a factor of at most e, before the
        sum of the weights is set to 1 again.

        Args:
            before: log-factor ``(B, latent_dim) -> (B,)`` whose shares are kept; zero for the shares of the
                mixture.
            after: log-factor that the weights are for.
            generator: source of randomness.
        """
        like: Any = {"dtype": self.mean.dtype, "device": self.mean.device}
        weight, changes = self.log_weight[: self.fitted], []
        with _full_precision(self.mean):
            for k in range(self.fitted):
                noise = normal(generator, (SHARE_DRAWS, self.latent_dim), **like)
                z = self.mean[k] + noise @ self.factor[k].T
                changes.append(torch.logsumexp(before(z), dim=0) - torch.logsumexp(after(z), dim=0))
            change = torch.stack(changes)
            change -= torch.logsumexp(weight + change, dim=0)  # a common factor changes no share
            weight += change.clamp(-1.0, 1.0)
            weight -= torch.logsumexp(weight, dim=0)

    # The fit

    @torch.no_grad()
    def fit(self, z: Tensor, generator: RandomSource = None) -> None:
        """Fit the mixture to latents.

        Args:
            z: latents ``(N, latent_dim)``, finite, at least 2 rows.
            generator: source of randomness.

        Raises:
            ValueError: for latents of another shape, too few latents, values that are not finite, or a
                mixture in ``bfloat16``.
        """
        if z.dim() != 2 or z.shape[1] != self.latent_dim or not bool(torch.isfinite(z).all()):
            raise ValueError(f"needs finite latents (N, {self.latent_dim}), not {tuple(z.shape)}")
        if len(z) < 2:
            raise ValueError(f"{len(z)} latents are too few for a fit")
        if self.mean.dtype == torch.bfloat16:
            raise ValueError("bfloat16 is too coarse for a mixture; for a run, use precision bf16-mixed")
        choices = list(dict.fromkeys(min(count, max(1, len(z) // 10)) for count in self.choices))
        with _full_precision(z):
            z = z.to(self.mean)
            best = choices[0]
            if len(choices) > 1:
                order = torch.argsort(uniform(generator, (len(z),), dtype=torch.float64, device=z.device))
                held_out, rest = z[order[: -(-len(z) // 10)]], z[order[-(-len(z) // 10) :]]
                found = {}
                for count in choices:
                    self._fit(rest, count, generator)
                    found[count] = self._expect(held_out)[1]
                best = max(found, key=lambda count: found[count])
            self._fit(z, best, generator)

    def _fit(self, z: Tensor, count: int, generator: RandomSource) -> None:
        # A later fit starts from the earlier one, which saves most of its iterations.
        start = self._expect(z)[0] if self.fitted == count and len(self.choices) == 1 else None
        self.fitted = count
        centre, spread = z.mean(dim=0), z.var(dim=0, unbiased=False).mean()
        floor = self.floor * spread.clamp_min(torch.finfo(z.dtype).tiny)
        z = z - centre  # to keep the cancellation in E[z z^T] - mu mu^T small
        shares = self._k_means(z, count, generator) if start is None else start
        before = -math.inf
        for _ in range(MAX_ITERATIONS):
            self._maximise(z, shares, count, floor)
            shares, now = self._expect(z)
            if now - before < TOLERANCE:
                break
            before = now
        self.mean[:count] += centre

    def _k_means(self, z: Tensor, count: int, generator: RandomSource) -> Tensor:
        """Return hard shares ``(N, count)`` by greedy k-means++ and a few iterations of k-means."""
        trials = 2 + int(math.log(count))  # of which the best becomes a centre
        chances = uniform(generator, (count, trials), dtype=torch.float64, device=z.device)
        centres: list[Tensor] = []
        nearest = torch.ones(len(z), dtype=torch.float64, device=z.device)
        for chance in chances:
            cumulative = nearest.cumsum(0)
            rows = torch.searchsorted(cumulative, chance * cumulative[-1], right=True).clamp(max=len(z) - 1)
            distance = torch.cdist(z[rows], z).double().square()
            if centres:
                distance = torch.minimum(distance, nearest)
            best = distance.sum(dim=1).argmin()
            centres.append(z[rows[best]])
            nearest = distance[best]
        middle = torch.stack(centres)
        for _ in range(10):
            label = torch.cat([torch.cdist(part, middle).argmin(dim=1) for part in z.split(CHUNK // count)])
            shares = z.new_zeros(len(z), count).scatter_(1, label.unsqueeze(1), 1.0)
            middle = (shares.T @ z) / shares.sum(dim=0).clamp_min(1.0).unsqueeze(1)
        return shares

    def _expect(self, z: Tensor) -> tuple[Tensor, float]:
        """Return ``p(k | z)``, ``(N, fitted)``, and the mean log-density."""
        shares, total = [], torch.zeros((), dtype=torch.float64, device=z.device)
        for part in z.split(self._rows(self.fitted)):
            joint = self.joint(part)
            total += torch.logsumexp(joint, dim=1).double().sum()
            shares.append(torch.softmax(joint, dim=1))
        return torch.cat(shares), float(total) / len(z)

    def _maximise(self, z: Tensor, shares: Tensor, count: int, floor: Tensor) -> None:
        """Set the parameters that maximise the expected log-density under ``shares``."""
        weight, first, second = (
            torch.zeros(count, size, dtype=torch.float64, device=z.device)
            for size in (1, self.latent_dim, self.latent_dim**2)
        )
        size = self._rows(self.latent_dim)
        for part, share in zip(z.split(size), shares.split(size), strict=True):
            weight += share.sum(dim=0).double().unsqueeze(1)
            first += (share.T @ part).double()
            second += (share.T @ (part.unsqueeze(2) * part.unsqueeze(1)).flatten(1)).double()
        total = weight.clamp_min(1e-6)
        mean = first / total
        moment = second.unflatten(1, (self.latent_dim, self.latent_dim)) / total.unsqueeze(2)
        covariance = moment - mean.unsqueeze(2) * mean.unsqueeze(1)
        if self.covariance == "tied":
            covariance = ((weight / len(z)).unsqueeze(2) * covariance).sum(dim=0).expand_as(covariance)
        elif self.covariance == "diagonal":
            covariance = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
        eye = torch.eye(self.latent_dim, dtype=torch.float64, device=z.device)
        factor = torch.linalg.cholesky(covariance + floor.double() * eye)
        self.log_weight.fill_(NO_WEIGHT)
        self.log_weight[:count] = (weight / len(z)).log().flatten().clamp_min(NO_WEIGHT).to(z.dtype)
        self.mean[:count], self.factor[:count] = mean.to(z.dtype), factor.to(z.dtype)
        whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        self.whitener[:count] = whitener.to(z.dtype)

    # Extra state, not a buffer: an average of weights must not average the number of components.

    def get_extra_state(self) -> dict[str, int]:
        return {"fitted": self.fitted}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.fitted = int(state["fitted"])


def _full_precision(z: Tensor) -> AbstractContextManager[object]:
    """Return a context without mixed precision, which the meta device does not support."""
    return nullcontext() if z.is_meta else torch.autocast(z.device.type, enabled=False)
