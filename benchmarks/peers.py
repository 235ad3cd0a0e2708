"""The same Langevin chain in other libraries, where they are installed.

``pip install --no-deps torchebm==0.8.9 ebmkit==0.16.0``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["Potential", "peers"]


class Potential(nn.Module):
    """Minus the log-density of a chain, which is what other libraries call the energy."""

    def __init__(self, log_density: Callable[[Tensor], Tensor], *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.log_density = log_density

    def forward(self, z: Tensor) -> Tensor:
        return -self.log_density(z)


def peers(potential: Potential, size: float, steps: int, start: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same chain in other libraries: their step is ``size^2 / 2``, their noise ``sqrt(2 step)``."""
    found: dict[str, Callable[[], Tensor]] = {}
    try:
        from ebm.samplers import LangevinDynamics as EbmkitLangevin

        ebmkit = EbmkitLangevin(step_size=size**2 / 2, steps=steps)
        found["ebmkit"] = lambda: ebmkit.sample(potential, start)
    except ImportError:
        pass
    try:
        from torchebm.core import BaseModel
        from torchebm.samplers import LangevinDynamics as TorchebmLangevin

        class Wrapped(BaseModel):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.potential = potential

            def forward(self, x: Tensor) -> Tensor:
                return self.potential(x)

        torchebm = TorchebmLangevin(Wrapped(), step_size=size**2 / 2, noise_scale=1.0, device=start.device)
        found["torchebm"] = lambda: torchebm.sample(x=start, n_steps=steps)
    except ImportError:
        pass
    return found
