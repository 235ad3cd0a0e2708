"""What a device must agree with: the same computation on the CPU in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lebm.samplers import Noise

__all__ = ["TOLERANCE", "SameNoise", "close"]

TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 1e-3, "atol": 1e-4},  # chains of up to ten steps add up their rounding
    torch.bfloat16: {"rtol": 5e-2, "atol": 5e-2},
    torch.float16: {"rtol": 1e-2, "atol": 1e-2},
}
"""The only tolerances of these tests, by the type of the value that is compared."""


def close(value: Any, expected: Any, name: str = "") -> None:
    """Compare a value of any device and type with one of the CPU in double precision."""
    value, expected = torch.as_tensor(value).detach(), torch.as_tensor(expected).detach()
    tolerance = TOLERANCE[value.dtype] if value.is_floating_point() else {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(
        value.cpu().to(expected.dtype), expected.cpu(), **tolerance, msg=lambda text: f"{name}: {text}"
    )


class SameNoise(Noise):
    """The same numbers on every device and in every type: drawn on the CPU in double precision."""

    def _draw(
        self, kind: str, shape: Sequence[int], steps: int | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        drawn = super()._draw(kind, shape, steps, torch.float64, torch.device("cpu"))
        return drawn.to(device, dtype)
