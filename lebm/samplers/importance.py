"""Importance weights, their effective sample size, and samplers with proposals of another density."""

import math
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lebm.errors import at_least
from lebm.samplers.base import (
    Info,
    LogDensity,
    Sampler,
    evaluate,
    finite_rows,
    rows,
    summarise,
    values_of_all,
)
from lebm.samplers.noise import RandomSource, normal, uniform


@runtime_checkable
class Proposal(Protocol):
    """A density with samples and values, for example :class:`~lebm.models.StandardNormal`.

    Example:
        >>> from lebm.models import StandardNormal
        >>> from lebm.samplers import Proposal
        >>> isinstance(StandardNormal(2), Proposal)
        True
        >>> StandardNormal(2).reference(5).shape
        torch.Size([5, 2])
    """

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """Draw ``n`` samples, ``(n, *event)``."""

    def log_density(self, z: Tensor) -> Tensor:
        """Return the log-density, ``(n,)``, normalised if used for a normalising constant."""


def clean_log_weights(log_weights: Tensor) -> Tensor:
    """Set NaN and infinite entries to weight zero, because a state without a density is not a candidate."""
    return torch.where(torch.isfinite(log_weights), log_weights, -torch.inf)


def weight_ess(log_weights: Tensor, dim: int = 0) -> Tensor:
    r"""Return Kong's effective sample size :math:`(\sum w)^2 / \sum w^2` along ``dim``, in float64.

    It lies between 1 and n, and is 0 if all weights are zero.

    Example:
        >>> import torch
        >>> from lebm.samplers import weight_ess
        >>> weight_ess(torch.tensor([1.0, 1.0, 0.5]).log())
        tensor(2.7778, dtype=torch.float64)
    """
    log_weights = clean_log_weights(log_weights).double()
    ess = (2 * log_weights.logsumexp(dim) - (2 * log_weights).logsumexp(dim)).exp()
    return torch.nan_to_num(ess, nan=0.0)


def resample(log_weights: Tensor, generator: RandomSource = None) -> Tensor:
    """Draw one candidate per row, in proportion to the weights.

    Args:
        log_weights: log-weights ``(B, M)``; a non-finite entry is a weight of zero.
        generator: source of one uniform number per row.

    Returns:
        Indices ``(B,)``; 0 if all weights are zero.

    Example:
        >>> import torch
        >>> from lebm.samplers import resample
        >>> resample(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).log())
        tensor([1, 0])
    """
    log_weights = clean_log_weights(log_weights).double()
    weights = (log_weights - log_weights.amax(dim=1, keepdim=True)).exp().nan_to_num(nan=0.0)
    cumulative = weights.cumsum(dim=1)
    chance = uniform(generator, log_weights.shape[:1], dtype=torch.float64, device=log_weights.device)
    chosen = torch.searchsorted(cumulative, (chance * cumulative[:, -1]).unsqueeze(1), right=True).squeeze(1)
    return torch.where(cumulative[:, -1] > 0, chosen.clamp(max=log_weights.shape[1] - 1), 0)


class SamplingImportanceResampling(Sampler):
    r"""Iterated resampling by importance weights (Rubin 1988; Andrieu, Lee & Vihola 2018, i-SIR).

    A transition adds M - 1 samples of a proposal q to each row, and moves the row to one of the M candidates
    in proportion to :math:`w(z) = \pi(z) / q(z)`. With ``init`` drawn from q, one transition is SIR with M
    candidates, biased by O(1/M). Every further transition leaves the target exactly invariant. The chain uses
    no gradient.

    The proposal must cover the target: ``ess`` is near M for a good q and 1 for a useless one. Rows do not
    share candidates, so a row depends on neither its neighbours nor the number of processes. A candidate with
    a non-finite log-density has weight zero, and a row without candidates stays.

    ``Info.extra`` has ``ess`` ``(B,)``, for the weights of the last transition, and ``acceptance`` ``(B,)``,
    the share of transitions that moved the row.

    Args:
        candidates: number of candidates M, at least 2.
        steps: number of transitions; 1 is SIR.
        proposal: density q; if ``None``, the base of a tilted target, otherwise a standard normal with the
            shape of ``init``.
        shared_target: whether the log-density is equal for all rows, such as a prior, so that candidates are
            evaluated in large batches.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import SamplingImportanceResampling
        >>> sampler = SamplingImportanceResampling(candidates=50, shared_target=True)
        >>> shifted = lambda z: -0.5 * (z - 1).square().sum(dim=1)
        >>> z = sampler(shifted, torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)))
        >>> z.shape, round(float(z.mean()))
        (torch.Size([2000, 1]), 1)
    """

    exact = True

    def __init__(
        self, candidates: int, steps: int = 1, proposal: nn.Module | None = None, shared_target: bool = False
    ) -> None:
        super().__init__(steps)
        self.proposal = proposal
        at_least(2, candidates=candidates)
        self.candidates = candidates
        self.shared_target = shared_target

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        count = start.shape[0]
        state, proposal = start, _densities(self.proposal, log_density, start)[0]
        log_weight = partial(_log_weights, self.proposal, log_density, self.shared_target)
        moves = torch.zeros(count, device=start.device)
        ess = torch.full((count,), torch.nan, device=start.device)
        with torch.no_grad():
            current = log_weight(state.unsqueeze(1))
            for _ in range(steps):
                # The candidates of a row are neighbours, so that they use the stream of the row.
                fresh = proposal.reference(count * (self.candidates - 1), generator).to(start)
                fresh = fresh.unflatten(0, (count, self.candidates - 1))
                log_weights = torch.cat([current, log_weight(fresh)], dim=1)
                chosen = resample(log_weights, generator)
                moved = fresh[torch.arange(count, device=start.device), (chosen - 1).clamp_min(0)]
                state = torch.where(rows(chosen > 0, state), moved, state)
                current = log_weights.gather(1, chosen.unsqueeze(1))
                moves += chosen > 0
                ess = weight_ess(log_weights, dim=1)
        extra = {"ess": ess, "acceptance": moves / max(1, steps)}
        return state, summarise(log_density, start, state, extra=extra) if want_info else None


class IndependenceMetropolis(Sampler):
    r"""Metropolis-Hastings with independent samples of one density q as proposals (Tierney 1994).

    A proposal :math:`z' \sim q` is accepted with probability :math:`\min(1, w(z') / w(z))`, where
    :math:`w(z) = \pi(z) / q(z)`. The target is exactly invariant. From a start drawn from q, the distance in
    total variation after t transitions is at most :math:`(1 - 1 / w^*)^t`, where :math:`w^*` is the largest
    weight over the mean weight (Mengersen & Tweedie 1996). The chain uses no gradient, and moves between all
    modes that q covers. Proposals with a non-finite log-density are rejected.

    ``Info.extra`` has ``acceptance`` ``(B,)``, the mean probability of acceptance.

    Args:
        steps: number of transitions, at least 0.
        proposal: density q; if ``None``, the base of a tilted target, otherwise a standard normal with the
            shape of ``init``.

    Raises:
        ValueError: for negative ``steps``.

    Example:
        >>> import torch
        >>> from lebm.samplers import IndependenceMetropolis
        >>> shifted = lambda z: -0.5 * (z - 1).square().sum(dim=1)
        >>> start, generator = torch.zeros(2000, 1), torch.Generator().manual_seed(0)
        >>> z, info = IndependenceMetropolis(steps=20).run(shifted, start, generator)
        >>> z.shape, round(float(z.mean())), float(info.extra["acceptance"].mean()) > 0.5
        (torch.Size([2000, 1]), 1, True)
    """

    exact = True

    def __init__(self, steps: int, proposal: nn.Module | None = None) -> None:
        super().__init__(steps)
        self.proposal = proposal

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        count, state = len(start), start
        proposal = _densities(self.proposal, log_density, start)[0]
        acceptance = torch.zeros(count, device=start.device)

        def log_weight(z: Tensor) -> Tensor:
            return _log_weights(self.proposal, log_density, False, z.unsqueeze(1)).squeeze(1).float()

        with torch.no_grad():
            current = log_weight(state)
            for _ in range(steps):
                fresh = proposal.reference(count, generator).to(start)
                weight = log_weight(fresh)
                gain = torch.where(torch.isneginf(weight), weight, weight - current)
                chance = uniform(generator, (count,), dtype=torch.float32, device=start.device)
                accept = chance.log() < gain
                state = torch.where(rows(accept, state), fresh, state)
                current = torch.where(accept, weight, current)
                acceptance += gain.clamp(max=0.0).exp()
        extra = {"acceptance": acceptance / max(1, steps)}
        return state, summarise(log_density, start, state, extra=extra) if want_info else None


def _densities(
    own: Any, log_density: LogDensity, start: Tensor
) -> tuple[Proposal, LogDensity, LogDensity | None]:
    """Return q, ``log pi`` and ``log q``; for a tilted density its base, ``log pi - log q`` and ``None``."""
    base: Any = getattr(log_density, "base", None)
    proposal = (base if own is None else own) or UnitNormal(start)
    if proposal is base:
        return proposal, log_density.log_ratio, None  # type: ignore[attr-defined]
    return proposal, log_density, proposal.log_density


def _log_weights(own: Any, log_density: LogDensity, shared_target: bool, states: Tensor) -> Tensor:
    """Return log-weights ``(B, m)`` of ``(B, m, *event)``; non-finite ones have weight zero."""
    flat = states.flatten(0, 1)
    _, target, log_proposal = _densities(own, log_density, flat)
    if shared_target:
        pieces = flat.split(max(1, 2**22 // flat[0].numel()))
        values = torch.cat([evaluate(target, piece) for piece in pieces])
    else:
        values = values_of_all(target, states).flatten()
    if log_proposal is not None:
        values = values - log_proposal(flat)
    log_weights = clean_log_weights(torch.where(finite_rows(flat), values, -torch.inf))
    return log_weights.unflatten(0, states.shape[:2])


class UnitNormal:
    """N(0, I) for rows of the shape of ``like: (B, *event)``, the proposal of a target without a base."""

    def __init__(self, like: Tensor) -> None:
        self.like = like

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        shape = (n, *self.like.shape[1:])
        return normal(generator, shape, dtype=self.like.dtype, device=self.like.device)

    def log_density(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        return -0.5 * flat.square().sum(dim=1) - 0.5 * flat.shape[1] * math.log(2 * math.pi)
