"""``lebm validate-recipe``: check a recipe, and print what it trains; ``--time`` measures three steps."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any

from lebm.component import component_line
from lebm.config.request import Request, helped, read_request
from lebm.errors import tell

if TYPE_CHECKING:
    from lebm.config.parser import RecipeCLI


def validate_recipe(argv: list[str]) -> int:
    """Run ``lebm validate-recipe RECIPE [--time] [overrides]``."""
    if helped("validate-recipe", argv):
        return 0
    timed = "--time" in argv
    request = read_request("validate-recipe", [word for word in argv if word != "--time"])
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
        for note in cli.notes:
            tell(f"data     {note}")
    tell(f"trainer  {_limits(cli.config.trainer)}")
    tell(f"run      {cli.run_dir}")
    if timed:
        tell(f"time     {_time(request)}")
    return 0


def built(request: Request) -> RecipeCLI:
    """Build the recipe of a request with networks that take no memory."""
    import torch

    from lebm.cli.training import quiet
    from lebm.config.parser import RecipeCLI

    quiet()
    with torch.device("meta"):
        return RecipeCLI(request, trainer_too=False)


def _time(request: Request) -> str:
    """Measure three training steps; return seconds per step and the time of the whole run, in words.

    Later stages of ``MultiStageNCE`` are slower than the measured first one.
    """
    import torch
    from lightning.pytorch import Callback, Trainer

    from lebm.config.parser import RecipeCLI

    cli = RecipeCLI(request, trainer_too=False)
    ends: list[tuple[int, float]] = []

    class Clock(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            ends.append((0, time.perf_counter()))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if trainer.global_step > ends[-1][0]:  # gradients may be accumulated over several batches
                if pl_module.device.type == "cuda":
                    torch.cuda.synchronize()
                ends.append((trainer.global_step, time.perf_counter()))
                trainer.should_stop = len(ends) > 3

    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    other = {"callbacks": [Clock()], "devices": 1, "num_nodes": 1, "strategy": "auto", "limit_val_batches": 0}
    other |= {"min_epochs": None, "min_steps": None, **dict.fromkeys(off, False)}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(**{**cli.config_init.trainer, **other, "default_root_dir": folder})
        trainer.fit(cli.model, cli.datamodule)
    first = ends[min(1, len(ends) - 2)]  # without the first step, which compiles and allocates
    seconds = (ends[-1][1] - first[1]) / (ends[-1][0] - first[0])
    total = ends[1][0] * trainer.estimated_stepping_batches  # a method may take several steps of a batch
    total = total if trainer.max_steps < 0 else min(total, trainer.max_steps)
    lasts = f"{seconds * total / 3600:.3g} hours"
    return f"{seconds:.3g} s per step; {total:,} steps: {lasts}, without validation and pictures"


def _limits(trainer: Any) -> str:
    named = ("max_epochs", "max_steps", "max_time", "accelerator", "devices", "precision")
    return ", ".join(f"{name}={trainer.get(name)}" for name in named if trainer.get(name) not in (None, -1))
