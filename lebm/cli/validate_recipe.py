"""``lebm validate-recipe``: parse a recipe, build its networks without memory, and print what it would train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lebm.cli.request import read_request

__all__ = ["validate_recipe"]


def validate_recipe(argv: list[str]) -> int:
    """``lebm validate-recipe RECIPE [overrides]``"""
    request = read_request("validate-recipe", argv)
    import torch

    from lebm.cli.parser import RecipeCLI
    from lebm.cli.training import quiet

    quiet()
    with torch.device("meta"):
        cli = RecipeCLI(request, trainer_too=False)
    model = cli.model
    print(f"recipe   {request.recipes[0]}")
    print(f"method   {type(model).__name__}, {model.latent_dim} latent coordinates")
    for name, network in model.networks().items():
        count = sum(parameter.numel() for parameter in network.parameters())
        print(f"network  {name}: {type(network).__name__}, {count:,} parameters")
    for name, chain in model.chain_settings.items():
        if chain is not None:
            print(f"chain    {name}: {_short(chain)}")
    if cli.datamodule is not None:
        section = cli.config.data
        print(f"data     {_short({'class_path': section.class_path, 'init_args': section.get('init_args', {})})}")
    print(f"trainer  {_limits(cli.config.trainer)}")
    print(f"run      {cli.run_dir}")
    return 0


def _short(part: Any) -> str:
    if not isinstance(part, Mapping) or "class_path" not in part:
        return str(part)
    arguments = dict(part.get("init_args") or {})
    listed = ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
    return f"{part['class_path'].rpartition('.')[2]}({listed})"


def _limits(trainer: Any) -> str:
    named = ("max_epochs", "max_steps", "max_time", "accelerator", "devices", "precision")
    return ", ".join(f"{name}={trainer.get(name)}" for name in named if trainer.get(name) not in (None, -1))
