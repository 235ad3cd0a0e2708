"""lebm: latent-space energy-based models as a modular PyTorch Lightning toolkit.

Importing ``lebm`` itself is cheap: torch and Lightning load only with its sub-packages, such as
``lebm.models``, and when ``lebm.load`` is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lebm._version import __version__

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningDataModule

    from lebm.estimators import LatentModel

__all__ = ["__version__", "from_recipe", "load"]

Method = TypeVar("Method", bound="LatentModel")


@overload
def load(
    run_or_file: str | Path,
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> LatentModel: ...


@overload
def load(
    run_or_file: str | Path,
    expected: type[Method],
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> Method: ...


def load(
    run_or_file: str | Path,
    expected: Any = None,
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> LatentModel:
    """Rebuild the model of a run folder or a file, in evaluation mode.

    Args:
        run_or_file: a run folder, a ``.ckpt`` or ``.safetensors`` file, ``pretrained/NAME`` for a model that
            ships with lebm, or ``hub:USER/NAME[@REVISION]`` for one on the Hugging Face Hub.
        expected: the method that the model must be, such as :class:`~lebm.estimators.LatentMLE`; the result
            has this type. Any method if ``None``.
        trust: packages, besides lebm and torch.nn, whose classes the checkpoint may name.
        map_location: device of the result.
        weights: ``"ema"`` for the averaged weights where the run kept them (the plain ones otherwise),
            ``"raw"`` for the plain ones.

    Returns:
        The model; its ``loaded_weights`` says which weights it has.

    Raises:
        UserError: if the file is damaged, names a class that is not trusted, or holds another method; then
            nothing was imported or executed.
    """
    from lebm import checkpoint
    from lebm.estimators import LatentModel

    return checkpoint.load(
        run_or_file,
        LatentModel if expected is None else expected,
        trust=trust,
        map_location=map_location,
        weights=weights,
    )


def from_recipe(
    *recipes: str | Path, settings: Mapping[str, Any] | None = None, trust: Iterable[str] = ()
) -> tuple[LatentModel, LightningDataModule]:
    """Build the model and the data of a recipe, as ``lebm fit`` does before it trains.

    The global random generators get the seed of the recipe, so the networks start with the same weights each
    time. Callbacks, loggers and trainer of the recipe are left out.

    Args:
        recipes: names or files, such as ``"latent_mle/mnist"``; later ones change earlier ones.
        settings: flags of ``lebm fit`` without their hyphens, such as ``{"latent_dim": 16}``, and values.
        trust: packages, besides lebm, lightning and torch, whose classes the recipes may name.

    Returns:
        The untrained model and the data module; nothing was read or written besides the recipes.

    Raises:
        UserError: one line, for any fault of a recipe or a setting.

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
