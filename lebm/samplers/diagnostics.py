"""Diagnostics of mixing: rank-normalised split R-hat, effective sample sizes, autocorrelation.

All functions take draws ``(draws, chains, *event)``, at least 4 draws, compute in float64, and raise a
``ValueError`` for other shapes. R-hat and the effective sample sizes return one number per event coordinate
(Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, *Rank-normalization, folding, and localization: an
improved R-hat*).

Example:
    >>> import torch
    >>> from lebm.samplers import autocorrelation, bulk_ess, split_rhat, tail_ess
    >>> draws = torch.randn(1000, 4, 2, generator=torch.Generator().manual_seed(0))
    >>> bool((split_rhat(draws) < 1.01).all())
    True
    >>> bulk_ess(draws).shape, tail_ess(draws).shape, autocorrelation(draws, max_lag=5).shape
    (torch.Size([2]), torch.Size([2]), torch.Size([6, 2]))
"""

import torch
from torch import Tensor


def autocorrelation(draws: Tensor, max_lag: int | None = None) -> Tensor:
    """Return the autocorrelation within chains, averaged over chains.

    Args:
        draws: ``(draws, chains, *event)``, at least 4 draws.
        max_lag: last lag, at most ``draws - 1``; all lags if ``None``.

    Returns:
        Autocorrelations ``(max_lag + 1, *event)``: 1 at lag 0, and NaN for a coordinate that never moves.
    """
    covariance = _autocovariance(_checked(draws)).mean(dim=1)
    return (covariance / covariance[0])[: None if max_lag is None else max_lag + 1]


def split_rhat(draws: Tensor) -> Tensor:
    """Return the larger of the rank-normalised split R-hats of draws and of folded draws, ``(*event)``.

    Values up to 1.01 are good. Folded draws, the distances from the median, reveal chains that agree in
    location but differ in scale.
    """
    halves = _split(_checked(draws))
    folded = (halves - _quantile(halves.flatten(0, 1), 0.5)).abs()
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def bulk_ess(draws: Tensor) -> Tensor:
    """Return the effective number of independent draws for the bulk of the distribution, ``(*event)``."""
    return _ess(_normal_scores(_split(_checked(draws))))


def tail_ess(draws: Tensor) -> Tensor:
    """Return the smaller effective number of independent draws for the 5% and 95% quantiles, ``(*event)``."""
    draws = _checked(draws)
    ends = (_quantile(draws.flatten(0, 1), level) for level in (0.05, 0.95))
    return torch.minimum(*[_ess(_split((draws <= end).double())) for end in ends])


def _checked(draws: Tensor) -> Tensor:
    if draws.dim() < 2 or draws.shape[0] < 4:
        raise ValueError(f"needs draws (draws, chains, *event), at least 4 draws, not {tuple(draws.shape)}")
    return draws.double()


def _split(draws: Tensor) -> Tensor:
    """Split each chain into two half chains, without the middle draw of an odd number."""
    half = draws.shape[0] // 2
    return torch.cat([draws[:half], draws[-half:]], dim=1)


def _quantile(draws: Tensor, level: float) -> Tensor:
    """Interpolate between order statistics of ``(n, *event)``; ``torch.quantile`` has a size limit."""
    ordered = draws.sort(dim=0).values
    position = level * (draws.shape[0] - 1)
    low = int(position)
    return torch.lerp(ordered[low], ordered[min(low + 1, draws.shape[0] - 1)], position - low)


def _normal_scores(draws: Tensor) -> Tensor:
    """Map ranks over all draws and chains (ties share their mean rank) to normal quantiles."""
    flat = draws.flatten(0, 1)
    columns = flat.reshape(flat.shape[0], -1).T.contiguous()
    ordered = columns.sort(dim=1).values
    below, up_to = (torch.searchsorted(ordered, columns, right=ties) for ties in (False, True))
    rank = (below + up_to + 1).double() / 2
    scores = torch.special.ndtri((rank - 0.375) / (flat.shape[0] + 0.25))
    return scores.T.reshape(draws.shape)


def _rhat(draws: Tensor) -> Tensor:
    count = draws.shape[0]
    within = draws.var(dim=0).mean(dim=0)
    between = draws.mean(dim=0).var(dim=0)
    return ((count - 1) / count + between / within).sqrt()


def _autocovariance(draws: Tensor) -> Tensor:
    """Return biased autocovariances ``(draws, chains, *event)`` by FFT, with zero padding."""
    count = draws.shape[0]
    centred = draws - draws.mean(dim=0)
    spectrum = torch.fft.rfft(centred, n=2 * count, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * count, dim=0)[:count] / count


def _ess(draws: Tensor) -> Tensor:
    """Return the effective sample size over chains, with Geyer's initial monotone sequence of pair sums."""
    count, chains = draws.shape[:2]
    covariance = _autocovariance(draws).mean(dim=1)
    within = covariance[0] * count / (count - 1)
    total = covariance[0] + (draws.mean(dim=0).var(dim=0) if chains > 1 else 0.0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[: count // 2 * 2].unflatten(0, (-1, 2))
    sums = pairs.sum(dim=1)
    positive = (sums >= 0).long().cumprod(dim=0).bool()
    # The longest lags are mostly noise, so stop there if no pair sum is negative before, as Stan does.
    positive[(count - 3) // 2 :] = False
    monotone = sums.cummin(dim=0).values
    length = positive.sum(dim=0, keepdim=True)
    # Adding the even term of the first pair after the cut halves the bias of the cut.
    remainder = pairs[:, 0].gather(0, length).squeeze(0).clamp_min(0.0)
    time = -1 + 2 * torch.where(positive, monotone, 0.0).sum(dim=0) + remainder
    limit = torch.tensor(float(count * chains), dtype=torch.float64, device=draws.device)
    return limit / time.clamp_min(1 / limit.log10().item())
