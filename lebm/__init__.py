"""lebm: latent-space energy-based models as a modular PyTorch Lightning toolkit.

Importing ``lebm`` itself is cheap: torch and Lightning load only with the sub-packages ``lebm.models``, ``lebm.samplers``,
``lebm.estimators``, ``lebm.data``, ``lebm.metrics`` and ``lebm.callbacks``, and with the first use of ``lebm.load``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lebm._version import __version__

if TYPE_CHECKING:
    from lebm.checkpoint import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module 'lebm' has no attribute {name!r}")
    from lebm.checkpoint import load

    return load
