"""lebm: latent-space energy-based models as a modular PyTorch Lightning toolkit.

``import lebm`` is fast, because torch and Lightning are imported only by its sub-packages, such as
``lebm.models``, and by ``lebm.load``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm._version import __version__

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningDataModule
    from typing_extensions import TypeVar

    from lebm.estimators import LatentModel

    Method = TypeVar("Method", bound=LatentModel, default=LatentModel)

__all__ = ["__version__", "from_recipe", "load"]


def load(
    run_or_file: str | Path,
    expected: type[Method] | None = None,
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> Method:
    """Rebuild the model of a run folder or a file, in evaluation mode.

    Args:
        run_or_file: run folder, ``.ckpt`` or ``.safetensors`` file, ``pretrained/NAME`` for a model that is
            part of lebm, or ``hub:USER/NAME[@REVISION]`` for a model on the Hugging Face Hub.
        expected: expected method, such as :class:`~lebm.estimators.LatentMLE`, which is the type of the
            result; any method if ``None``.
        trust: packages besides lebm and torch.nn whose classes the checkpoint may name.
        map_location: device of the model.
        weights: ``"ema"`` for averaged weights if the run kept them, otherwise plain weights; ``"raw"`` for
            plain weights.

    Returns:
        The model, whose ``loaded_weights`` names its weights.

    Raises:
        UserError: if the file is damaged, names a class that is not trusted, or holds another method, before
            anything is imported or executed.

    Example:
        >>> import lebm
        >>> model = lebm.load("pretrained/latent_mle-mnist")
        >>> model.sample(2).shape, model.loaded_weights
        (torch.Size([2, 1, 28, 28]), 'plain')
    """
    from lebm import checkpoint
    from lebm.estimators import LatentModel

    kind: Any = expected or LatentModel
    file, content = checkpoint.newest(run_or_file)
    return checkpoint.rebuilt(file, content, kind, trust=trust, map_location=map_location, weights=weights)


def from_recipe(
    *recipes: str | Path, settings: Mapping[str, Any] | None = None, trust: Iterable[str] = ()
) -> tuple[LatentModel, LightningDataModule]:
    """Build the model and the data of a recipe, as ``lebm fit`` does before training.

    The global random generators are seeded by the recipe, so that initial weights are reproducible.
    Callbacks, loggers and trainer of the recipe are left out.

    Args:
        recipes: names or files, such as ``"latent_mle/mnist"``; later ones override earlier ones.
        settings: flags of ``lebm fit`` without leading hyphens, with their values, such as
            ``{"latent_dim": 16}``.
        trust: packages besides lebm, lightning and torch whose classes the recipes may name.

    Returns:
        The untrained model and the data module; only the recipes are read.

    Raises:
        UserError: for an invalid recipe or setting.

    Example:
        >>> import lebm
        >>> model, data = lebm.from_recipe("quickstart", settings={"latent_dim": 4, "data.batch_size": 50})
        >>> model.sample(2).shape, data.batch_size
        (torch.Size([2, 1, 28, 28]), 50)
    """
    import json

    from lebm.config.parser import RecipeCLI
    from lebm.config.request import read_request

    words = [word for recipe in recipes for word in ("-c", str(recipe))]
    words += [word for package in trust for word in ("--trust", package)]
    for key, value in (settings or {}).items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    cli = RecipeCLI(read_request("fit", words), trainer_too=False)
    return cli.model, cli.datamodule
