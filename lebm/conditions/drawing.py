"""Sampling under a condition: prior samples are weighted and moved from the prior to the condition."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lebm.conditions.algebra import Given, as_condition
from lebm.errors import UserNotice
from lebm.samplers.base import LogDensity
from lebm.samplers.importance import clean_log_weights, weight_ess
from lebm.samplers.metropolis import MALA
from lebm.samplers.noise import RandomSource, uniform

_BLOCK = 5  # transitions between two changes of the step
_MOVES = 20  # transitions after the last selection
_LEVELS = 200
_FEWEST = 32  # effective particles that determine the widths of the target


@dataclass(frozen=True)
class ConditionalDraws:
    r"""Latents given a condition, and how they were obtained.

    Attributes:
        z: latents ``(n, d)``, a group of neighbours for each row of data inside the condition.
        acceptance: mean acceptance of the last transitions, in [0, 1].
        ess: effective number of particles from which the latents were chosen, the smallest over the groups.
            Far below the number of latents of a group, latents are copies that the last transitions moved
            apart.
        levels: number of steps from the prior to the condition; 1 if prior samples were only selected.
        log_evidence: estimate of :math:`\log E_{p(z)}[e^{c(z)}]`, ``(rows,)``, for example the log-share of a
            class.
        met: mask of the latents that meet the condition, ``(n,)``.
    """

    z: Tensor
    acceptance: float
    ess: float
    levels: int
    log_evidence: Tensor
    met: Tensor

    def warn(self) -> None:
        """Issue a :class:`~lebm.errors.UserNotice` if fewer than half of the latents meet the condition."""
        met, n = int(self.met.sum()), len(self.z)
        if 2 * met < n:
            warnings.warn(
                f"{met} of {n} samples meet the condition, which is rare under this model (acceptance"
                f" {self.acceptance:.2f}, {self.ess:.0f} effective prior samples)",
                UserNotice,
                stacklevel=3,
            )


def draw_given(
    prior: LogDensity,
    given: Given,
    start: Tensor,
    n: int,
    generator: RandomSource = None,
    *,
    latents: Callable[[Tensor], Tensor] | None = None,
) -> ConditionalDraws:
    r"""Draw from :math:`p(z)\, e^{c(z)} / Z` by a sequential Monte Carlo sampler (Del Moral et al. 2006).

    Particles start as samples of the prior. They are weighted by :math:`e^{(\beta_{t+1} - \beta_t) c(z)}`,
    resampled, and moved by :class:`~lebm.samplers.MALA` on :math:`p(z)\, e^{\beta_{t+1} c(z)}`, where each
    :math:`\beta` leaves half of the particles effective. As soon as the remaining weights leave ``n``
    effective particles, ``n`` particles are selected and moved 20 times on the target. A class takes
    one or two levels, which keep every mode, and an image observed with little noise about twelve. The
    preconditioner is the variance of the particles, and the step size adapts between blocks of transitions,
    so the result depends on ``n``.

    Args:
        prior: unnormalised log-density of latents, ``(B, d) -> (B,)``.
        given: condition c.
        start: samples of the prior, ``(P, d)``, at least two per row of data. With 16 per latent, a class
            with a share of 0.1 needs no copies.
        n: number of latents, a multiple of the rows of data inside the condition.
        generator: source of randomness.
        latents: function from states of the prior, such as noise, to latents; the identity if ``None``.

    Raises:
        ValueError: if ``n`` or P is not a multiple of the rows of data inside the condition.

    Example:
        >>> import torch
        >>> from lebm.conditions import Near, draw_given
        >>> normal, generator = lambda z: -0.5 * z.square().sum(dim=1), torch.Generator().manual_seed(0)
        >>> start = torch.randn(4000, 1, generator=generator)
        >>> draws = draw_given(normal, Near(torch.tensor([2.0]), sigma=1.0), start, 1000, generator)
        >>> draws.z.shape, round(float(draws.z.mean()), 1), draws.levels  # N(1, 1/2)
        (torch.Size([1000, 1]), 1.0, 1)
    """
    condition, latents = as_condition(given), latents or nn.Identity()
    groups = condition.rows
    if n % groups or len(start) % groups or len(start) < 2 * groups:
        raise ValueError(
            f"{n} samples from {len(start)} particles are not a multiple of the {groups} rows of data in"
            " the condition"
        )

    def tempered(beta: float) -> LogDensity:
        return lambda state: prior(state) + beta * condition(latents(state))

    kernel: MALA | None = None
    state, beta, levels = start.detach(), 0.0, 0
    evidence = torch.zeros(groups, dtype=torch.float64, device=start.device)
    while beta < 1.0:
        levels += 1
        with torch.no_grad():
            values = clean_log_weights(condition(latents(state)).double()).reshape(groups, -1)
        nearer = 1.0 if levels == _LEVELS else _next(values, beta, n // groups)
        weights = (nearer - beta) * values
        evidence += weights.logsumexp(1) - math.log(weights.shape[1])
        count, moves = (n // groups, _MOVES) if nearer == 1.0 else (weights.shape[1], _BLOCK)
        chosen = _systematic(weights, count, generator)
        kernel = _preconditioned(state, weights, kernel)
        state, acceptance = _moved(kernel, tempered(nearer), state[chosen], generator, moves)
        beta = nearer
    ess = float(weight_ess(weights, dim=1).min())
    with torch.no_grad():
        z = latents(state)
        return ConditionalDraws(z, acceptance, ess, levels, evidence, condition.met(z))


def _next(values: Tensor, beta: float, n: int) -> float:
    """Return the next inverse temperature for log-factors ``(groups, P)``."""

    def effective(nearer: float) -> float:
        return float(weight_ess((nearer - beta) * values, dim=1).min())

    if effective(1.0) >= min(max(n, _FEWEST), values.shape[1] / 2):
        return 1.0
    low, high = beta, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= values.shape[1] / 2 else (low, middle)
    return high


def _systematic(log_weights: Tensor, n: int, generator: RandomSource) -> Tensor:
    """Resample systematically in shuffled order: rows ``(groups n,)`` of log-weights ``(groups, P)``."""
    groups, count = log_weights.shape
    highest = log_weights.amax(dim=1, keepdim=True)
    cumulative = (log_weights - highest).exp().nan_to_num(nan=1.0).cumsum(dim=1)
    chance = uniform(generator, (groups, 1), dtype=torch.float64, device=log_weights.device)
    places = (chance + torch.arange(n, device=log_weights.device)) / n * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, places, right=True).clamp(max=count - 1)
    order = uniform(generator, (groups, n), dtype=torch.float64, device=chosen.device).argsort(dim=1)
    return (chosen.gather(1, order) + count * torch.arange(groups, device=chosen.device)[:, None]).flatten()


def _preconditioned(state: Tensor, log_weights: Tensor, before: MALA | None) -> MALA:
    """Return a kernel for the widths of the weighted particles, with the step size of ``before``."""
    weights = log_weights.softmax(dim=1).to(state).unsqueeze(2)
    grouped = state.unflatten(0, log_weights.shape)
    centred = grouped - (weights * grouped).sum(dim=1, keepdim=True)
    variance = (weights * centred.square()).sum(dim=1).mean(dim=0).clamp_min(1e-12)
    kernel = MALA(_BLOCK, 1.0, variance.tolist()).to(state.device)
    kernel.step_scale = 1.0 if before is None else before.step_scale
    return kernel


def _moved(
    kernel: MALA, target: LogDensity, state: Tensor, generator: RandomSource, steps: int
) -> tuple[Tensor, float]:
    """Return states after ``steps`` transitions, and the acceptance of the last block."""
    acceptance = math.nan
    for done in range(0, steps, _BLOCK):
        state, info = kernel.run(target, state, generator, steps=min(_BLOCK, steps - done))
        acceptance = float(info.extra["acceptance"].mean())
        kernel.step_scale *= math.exp(acceptance - kernel.target_acceptance)
    return state, acceptance
