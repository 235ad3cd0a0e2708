"""The packaged recipes and models: ``lebm ls``, ``cat``, ``cp``, ``validate-recipe``, ``pretrained``."""

from __future__ import annotations

import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm import pretrained as models
from lebm.cli.common import VerbParser, free
from lebm.component import component_line
from lebm.config.recipes import blocks, find, included, is_measured, load_recipe, names, title
from lebm.config.request import Request, check_data, helped, read_request
from lebm.errors import UserError, printable, tell
from lebm.files import write_text

if TYPE_CHECKING:
    from lebm.config.parser import RecipeCLI


def ls(argv: list[str]) -> None:
    """Run ``lebm ls``."""
    VerbParser("ls", "List the recipes with their titles.").parse_args(argv)
    known = names()
    width = max(map(len, known))
    for name, path in known.items():
        print(f"{name:<{width}} {'*' if is_measured(path) else ' '} {title(path)}".rstrip())
    print("\n* run at full length, with the result in its header: lebm cat RECIPE")
    if shared := blocks():
        print(f"\nblocks that recipes include: {', '.join(shared)}")


def pretrained(argv: list[str]) -> None:
    """Run ``lebm pretrained``."""
    what = "List the trained models of the package, each with the first line of its card."
    VerbParser("pretrained", what).parse_args(argv)
    for name, file in models.names().items():
        lines = file.with_suffix(".md").read_text(encoding="utf-8").splitlines()
        below = lines[lines.index("---", 1) + 1 :]  # without the head for the Hub
        summary = next(line for line in below if line and not line.startswith("#"))
        print(f"{models.PREFIX}{name}  {file.stat().st_size / 1e6:.2f} MB  {summary}")


def cat(argv: list[str]) -> None:
    """Run ``lebm cat RECIPE``."""
    parser = VerbParser("cat", "Print a recipe, with the recipes and blocks that it includes as comments.")
    parser.add_argument("recipe", help="a name that lebm ls prints, or a path")
    path = find(parser.parse_args(argv).recipe)
    print(printable(path.read_text(encoding="utf-8")), end="")
    for file in included(path, load_recipe(path)):
        print(f"\n# included from {printable(str(file))}")
        for line in file.read_text(encoding="utf-8").splitlines():
            print(f"#   {printable(line)}")


def cp(argv: list[str]) -> None:
    """Run ``lebm cp RECIPE DEST [--for FOLDER]``."""
    parser = VerbParser("cp", "Copy a recipe, as the start of your own.")
    parser.add_argument("recipe", help="a name that lebm ls prints, or a path")
    parser.add_argument("dest", type=Path, help="file, or existing folder")
    kinds = "a folder, parquet files, a Hub name, a .npy or .npz file, or an IDX file"
    data = f"images or vectors that the copy is fitted to: {kinds} (default: the data of the recipe)"
    parser.flag("--for", data, dest="data", metavar="FOLDER")
    parser.flag("--force", "replace DEST if it exists", action="store_true")
    chosen = parser.parse_args(argv)
    source = find(chosen.recipe)
    target = chosen.dest / source.name if chosen.dest.is_dir() else chosen.dest
    free(target, chosen.force, "name")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder for the copy")
    if chosen.data is None:
        text, told = source.read_text(encoding="utf-8"), []
    else:
        check_data(chosen.data, "--for")
        from lebm.config.fitting import check_kind, fitted
        from lebm.data.survey import survey

        check_kind(source, chosen.data)
        found = survey(chosen.data)
        text, decided = fitted(source, found, target.parent)
        told = [found.line, *decided]
    write_text(target, text)
    for sentence in [*told, f"next: lebm fit -c {shlex.quote(str(target))}"]:
        tell(f"{target}: {sentence}")


def validate_recipe(argv: list[str]) -> None:
    """Run ``lebm validate-recipe RECIPE [--time] [overrides]``."""
    if helped("validate-recipe", argv):
        return
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
        tell(f"data     {component_line(cli.config.data.as_dict())}")
        for note in cli.notes:
            tell(f"data     {note}")
    named = ("max_epochs", "max_steps", "max_time", "accelerator", "devices", "precision")
    limits = {name: cli.config.trainer.get(name) for name in named}
    set_ones = (f"{name}={value}" for name, value in limits.items() if value not in (None, -1))
    tell(f"trainer  {', '.join(set_ones)}")
    tell(f"run      {cli.run_dir}")
    if timed:
        tell(f"time     {_time(request)}")


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
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LambdaCallback

    from lebm.config.parser import RecipeCLI

    cli = RecipeCLI(request, trainer_too=False)
    ends: list[tuple[int, float]] = []

    def note(trainer: Any, model: Any, *args: Any) -> None:
        if not ends or trainer.global_step > ends[-1][0]:  # a step may take several batches
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            ends.append((trainer.global_step, time.perf_counter()))
            trainer.should_stop = len(ends) > 3

    clock = LambdaCallback(on_train_start=note, on_train_batch_end=note)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    other = {"callbacks": [clock], "devices": 1, "num_nodes": 1, "strategy": "auto", "limit_val_batches": 0}
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
