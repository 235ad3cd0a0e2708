"""lebm: latent-space energy-based models as a modular PyTorch Lightning toolkit.

Importing ``lebm`` itself is cheap: torch and Lightning load only with the sub-packages ``lebm.models``, ``lebm.samplers``,
``lebm.estimators``, ``lebm.data``, ``lebm.metrics`` and ``lebm.callbacks``.
"""

from lebm._version import __version__

__all__ = ["__version__"]
