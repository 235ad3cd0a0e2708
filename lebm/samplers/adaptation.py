"""Adaptation of step sizes to a target acceptance by dual averaging, only on an explicit call."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lebm.samplers.base import LogDensity, Sampler, finite_rows, rows
from lebm.samplers.chains import sum_over_processes
from lebm.samplers.noise import RandomSource


class Adaptive(Sampler):
    """A sampler whose step size is multiplied by ``step_scale``, which is 1 until :meth:`warm_up` sets it.

    ``step_scale`` is part of the ``state_dict``.

    Args:
        steps: default number of transitions, at least 0.
        preconditioner: one positive number per coordinate of the flattened event.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA
        >>> sampler, normal = MALA(steps=1, step_size=5.0), lambda z: -0.5 * z.square().sum(dim=1)
        >>> z = sampler.warm_up(normal, torch.zeros(100, 2), torch.Generator().manual_seed(0), steps=100)
        >>> round(sampler.step_scale, 1)
        0.3
    """

    target_acceptance: float = 0.574
    """Default target: the optimum for Langevin proposals in many dimensions (Roberts & Rosenthal 1998)."""

    step_scale: float = 1.0
    preconditioner: Tensor | None

    def __init__(self, steps: int, preconditioner: Sequence[float] | None = None) -> None:
        super().__init__(steps)
        entries = None if preconditioner is None else [float(entry) for entry in preconditioner]
        # Checked as numbers, because the tensor may be on the meta device.
        if entries is not None and not (entries and all(0 < entry < math.inf for entry in entries)):
            raise ValueError("preconditioner needs positive finite entries")
        self.register_buffer("preconditioner", None if entries is None else torch.tensor(entries))

    def _metric(self, state: Tensor) -> Tensor | None:
        """Return the preconditioner with the shape, dtype and device of a row of ``state``."""
        metric = self.preconditioner
        if metric is not None and metric.numel() != state[0].numel():
            raise ValueError(
                f"the preconditioner has {metric.numel()} entries but a row of the state has"
                f" {state[0].numel()} coordinates"
            )
        return None if metric is None else metric.to(state).reshape(state.shape[1:])

    def warm_up(
        self,
        log_density: LogDensity,
        init: Tensor,
        generator: RandomSource = None,
        *,
        steps: int = 200,
        across_processes: bool = True,
    ) -> Tensor:
        r"""Run ``steps`` transitions, adapt ``step_scale``, and return the last states.

        All chains of the batch share one step size :math:`x`, adapted to the acceptance :math:`\delta` by
        dual averaging (Hoffman & Gelman 2014, eq. 6) with :math:`\mu = \log(10 x_0)`, to :math:`\bar x`:

        .. math:: \log x_{t+1} = \mu - \frac{\sqrt t}{0.05 (t + 10)} \sum_{i \le t} (\delta - \alpha_i),
            \qquad \log \bar x_{t+1} = t^{-0.75} \log x_{t+1} + (1 - t^{-0.75}) \log \bar x_t

        Args:
            log_density: ``(B, *event) -> (B,)``.
            init: ``(B, *event)``.
            generator: source of randomness.
            steps: number of transitions, usually at least 100.
            across_processes: whether the processes agree on the step size; all of them must then make the
                same number of calls. Use ``False`` if processes run different chains or some run no chain.

        Returns:
            Last states ``(B, *event)``, detached.

        Raises:
            ValueError: if the sampler has no acceptance.
        """
        state, average, errors = init, self.step_scale, 0.0
        shrink = math.log(10 * average)
        for count in range(1, steps + 1):
            moved, info = self.run(log_density, state, generator, steps=1)
            state = torch.where(rows(finite_rows(moved), init), moved, init)  # a diverged row begins again
            if "acceptance" not in info.extra:
                raise ValueError(f"{type(self).__name__} with these settings has no acceptance to adapt to")
            rates = info.extra["acceptance"].double()
            finite = torch.where(torch.isfinite(rates), rates, 0)  # what is not finite is rejected
            total = torch.stack([finite.sum(), rates.new_tensor(float(rates.numel()))])
            total = sum_over_processes(total) if across_processes else total
            errors += self.target_acceptance - float(total[0] / total[1].clamp_min(1))
            log_scale = shrink - math.sqrt(count) / 0.05 * errors / (count + 10)
            weight = count**-0.75
            average = math.exp(weight * log_scale + (1 - weight) * math.log(average))
            self.step_scale = math.exp(log_scale)
        self.step_scale = average
        return state

    def get_extra_state(self) -> Tensor:
        # Not a buffer, because reading a buffer in every chain would make the host wait for the GPU.
        return torch.tensor(self.step_scale, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.step_scale = float(state)
