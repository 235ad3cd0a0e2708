"""``lebm validate-recipe``: parse a recipe, build its networks without memory, print what it would train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lebm.cli.common import tell
from lebm.component import component_line
from lebm.config.request import Request, read_request
from lebm.config.usage import helped
from lebm.errors import UserError

if TYPE_CHECKING:
    from lebm.config.parser import RecipeCLI

__all__ = ["built", "validate_recipe"]


def validate_recipe(argv: list[str]) -> int:
    """``lebm validate-recipe RECIPE [overrides]``"""
    if helped("validate-recipe", argv):
        return 0
    request = read_request("validate-recipe", argv)
    cli = built(request)
    model = cli.model
    tell(f"recipe   {request.recipes[0]}")
    tell(f"method   {type(model).__name__}, {model.latent_dim} latent coordinates")
    for name, network in model.networks().items():
        count = sum(parameter.numel() for parameter in network.parameters())
        tell(f"network  {name}: {type(network).__name__}, {count:,} parameters")
    for name, chain in model.chain_settings.items():
        if chain is not None:
            tell(f"chain    {name}: {component_line(chain)}")
    if cli.datamodule is not None:
        section = cli.config.data
        described = {"class_path": section.class_path, "init_args": section.get("init_args", {})}
        tell(f"data     {component_line(described)}")
    tell(f"trainer  {_limits(cli.config.trainer)}")
    tell(f"run      {cli.run_dir}")
    tell(f"cost     {_cost(cli)}")
    return 0


def built(request: Request) -> RecipeCLI:
    """The recipe of a request with its networks, which take no memory."""
    import torch

    from lebm.cli.training import quiet
    from lebm.config.parser import RecipeCLI

    quiet()
    with torch.device("meta"):
        return RecipeCLI(request, trainer_too=False)


def _cost(cli: RecipeCLI) -> str:
    """The arithmetic of the run in one line; it is counted last, because counting uses the model up."""
    from lebm.run.cost import run_cost

    try:
        return run_cost(cli.model, cli.datamodule, cli.config.trainer).line
    except (NotImplementedError, RuntimeError, UserError) as error:
        return f"not counted ({str(error).splitlines()[0]})"


def _limits(trainer: Any) -> str:
    named = ("max_epochs", "max_steps", "max_time", "accelerator", "devices", "precision")
    return ", ".join(f"{name}={trainer.get(name)}" for name in named if trainer.get(name) not in (None, -1))
