"""Whether a run may start in its folder, and from which checkpoint."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback

from lebm import checkpoint, hub, pretrained
from lebm.checkpoint.rebuild import build, filled
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.cli.common import tell
from lebm.component import describe
from lebm.config import checks, recipes
from lebm.config.changes import changed_settings
from lebm.config.held_out import without_foreign_numbers
from lebm.config.parser import RecipeCLI
from lebm.config.request import Request
from lebm.config.stored import stored_sections
from lebm.data.module import SplitData
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.run import folder as runs
from lebm.run.lock import sole_writer
from lebm.run.loggers import stored_run_id

__all__ = ["FinishedError", "TrainingCLI", "other_networks"]


class FinishedError(Exception):
    """There is nothing left to train."""


class TrainingCLI(RecipeCLI):
    """Decides whether a run may start here, and from which checkpoint.

    Attributes:
        ckpt_path: the checkpoint to start from or to evaluate, if there is one.
        stored: names and shapes of what that checkpoint holds.
        stored_model: the description of its model.
        begun: whether training has begun; what fails after that is no mistake of the recipe.
        fresh: whether this run made its folder.
        held: what is released when the run has ended: the lock of the run folder.
        notes: what a user should know about the data, one sentence per entry.
    """

    ckpt_path: Path | None = None
    stored: Mapping[str, tuple[int, ...]] = {}
    stored_model: Any = None
    begun = False
    fresh = False
    notes: Sequence[str] = ()

    def __init__(self, request: Request, held: contextlib.ExitStack) -> None:
        self.held = held
        super().__init__(request)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, LambdaCallback(on_train_start=self._begin))  # type: ignore[attr-defined]
        return trainer

    def _begin(self, *args: Any) -> None:
        self.begun = True

    def parse_arguments(self, parser: Any, args: Any) -> None:
        super().parse_arguments(parser, args)
        if self.config.data and self.config.data.get("init_args"):
            self.notes = without_foreign_numbers(self.request, self.config.data.init_args)

    def prepare_run(self) -> None:
        runs.check_links(self.run_dir)
        if self.request.verb == "fit":
            self._prepare_fit()
        else:
            self.ckpt_path = Path(self.config.ckpt_path or self.run_dir)
        if self.ckpt_path is None:
            return
        self.ckpt_path, content = checkpoint.newest(self.ckpt_path)
        if checkpoint.is_model_file(self.ckpt_path):
            raise UserError(
                f"{self.ckpt_path}: a model file holds no state of training, which a .ckpt file does; lebm"
                " evaluate measures it"
            )
        if self.request.run is not None:
            self._checked_description(self.ckpt_path, content)
        if self.request.verb != "fit":
            self.first_step = sys.maxsize
        elif self.request.resume:
            self.first_step = content.get("global_step", 0)
        if self.request.resume or self.request.verb != "fit":
            self.wandb_id = stored_run_id(content)
        self.stored_model = content.get("hyper_parameters")
        state = content["state_dict"].items()
        self.stored = {name: tuple(value.shape) for name, value in state if hasattr(value, "shape")}
        if self.request.resume:
            self._same_short_names()
            self._stop_if_finished(content)

    def stored_words(self) -> list[str]:
        run = self.request.run
        if run is None:
            return []
        sections, left_out = stored_sections(run, checks.load_recipe(run / "config.yaml"), self.request.trust)
        if left_out and runs.is_first_process():
            tell(
                f"lebm: left out of {run / 'config.yaml'}: {', '.join(left_out)} (a run folder chooses"
                " classes of lebm only; flags and -c RECIPE choose the rest)"
            )
        words = self.request.argv
        if len(self.request.recipes) > 1 or any(word.startswith("--model") for word in words):
            path, content = checkpoint.newest(_typed_checkpoint(words) or run)
            sections["model"] = self._checked_description(path, content)
        return ["-c", json.dumps(sections)]

    def _checked_description(self, path: Path, content: Mapping[str, Any]) -> Any:
        """What the checkpoint says of its model, checked by the rules of :func:`lebm.load`."""
        description = content.get("hyper_parameters")
        try:
            filled(description, LatentModel, content["state_dict"], self.request.trust)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return description

    def instantiate_classes(self) -> None:
        data = self._opened_data()
        self._instantiate()
        if data is not None:
            self.datamodule = data

    def _opened_data(self) -> SplitData | None:
        """The data module with its splits made, before any network is built.

        A fault of the data is then said at once. Only the data modules of lebm are opened here: another one
        may need its trainer.
        """
        kind = locate(self.config.data.class_path) if self.config.data else None
        if not (isinstance(kind, type) and issubclass(kind, SplitData)):
            return None
        alone = self.config.clone()
        for name in ("model", "trainer"):
            alone.pop(name, None)
        data = self.parser.instantiate(alone).data
        data.setup()
        self.notes = [*self.notes, *data.notes()]
        if self.request.verb == "fit":
            data.check_batch_size()
        return data

    def _instantiate(self) -> None:
        if self.request.run is None:
            super().instantiate_classes()
            return
        section = self.config.pop("model", None)
        super().instantiate_classes()
        described = self.stored_model if section is None else _bare(section.as_dict())
        self.model = build(described, LatentModel, self.request.trust, stored=True)  # type: ignore[type-abstract]

    def _same_short_names(self) -> None:
        """Refuse another ``latent_dim`` or ``latent_dims`` for a run that goes on.

        The stored recipe has its references filled in. Another value would change the stored recipe and not
        the networks.
        """
        stored = self.run_dir / "config.yaml"
        before = checks.load_recipe(stored) if stored.is_file() else {}
        for name in ("latent_dim", "latent_dims"):
            if name in before and self.config[name] != before[name]:
                start = "without" if before[name] is None else f"with {before[name]}"
                now = self.config[name]
                raise UserError(
                    f"{name}: {self.run_dir} was begun {start}, not {now}: a run that goes on keeps the sizes"
                    f" of its networks; leave {name} out (lebm fit --resume {self.run_dir}), or train a new"
                    f" run (lebm fit -c RECIPE --{name} {now} --run_dir FOLDER)"
                )

    def same_networks(self) -> None:
        """Refuse a checkpoint of other networks before the run folder is touched.

        Raises:
            UserError: naming the first weight that differs.
        """
        for name, value in self.model.named_parameters():
            if self.stored.get(name, value.shape) != tuple(value.shape):
                shapes = f"{name} has the shape {self.stored[name]} there and {tuple(value.shape)} here"
                changed = changed_settings(self.stored_model, describe(self.model), name)
                raise UserError(other_networks(self.ckpt_path, "; ".join([*changed, shapes])))

    def _prepare_fit(self) -> None:
        if runs.is_first_process():
            self.fresh = not self.run_dir.exists()
            self.held.enter_context(sole_writer(self.run_dir, self.request.resume))
            if self.request.resume:
                AtomicCheckpointIO.clean(self.run_dir / "checkpoints")
        if self.request.resume and any((self.run_dir / "checkpoints").glob("[!.]*.ckpt")):
            self.ckpt_path = self.run_dir
        elif self.config.ckpt_path:
            self.ckpt_path = Path(self.config.ckpt_path)
        else:
            self._find_backbone()

    def _find_backbone(self) -> None:
        """Refuse a ``backbone`` that is missing: the run whose networks a method starts from."""
        inference = (self.config.model.get("init_args") or {}).get("inference") or {}
        backbone = (inference.get("init_args") or {}).get("backbone")
        if backbone is None or Path(backbone).exists():
            return
        if backbone.startswith((pretrained.PREFIX, hub.PREFIX)):
            return
        hint = "name the run folder or checkpoint of the trained backbone"
        makers = [name for name in recipes.names() if name.replace("/", "-") == Path(backbone).name]
        if makers:
            hint = f"train it first: lebm fit -c {makers[0]}"
        key = "model.init_args.inference.init_args.backbone"
        raise UserError(f"{key}: {backbone}: no such run folder or checkpoint; {hint}")

    def _stop_if_finished(self, content: dict[str, Any]) -> None:
        limits = self.config.trainer
        epochs = _below(content, "loops", "fit_loop", "epoch_progress", "current", "processed")
        epochs, steps = epochs if isinstance(epochs, int) else 0, content.get("global_step", 0)
        all_epochs = limits.max_epochs not in (None, -1) and epochs >= limits.max_epochs
        if all_epochs or 0 <= limits.max_steps <= steps:
            raise FinishedError(
                f"{self.run_dir} is finished ({epochs} epochs, {steps} steps); raise --trainer.max_epochs or"
                " --trainer.max_steps to go on"
            )


def _below(content: Any, *keys: str) -> Any:
    """A value of nested mappings; ``None`` where one of them is missing or is no mapping."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _typed_checkpoint(words: list[str]) -> str | None:
    """The value of the last ``--ckpt_path`` among some words."""
    found = None
    for word, after in zip(words, [*words[1:], ""], strict=True):
        flag, has_value, value = word.partition("=")
        if flag == "--ckpt_path":
            found = value if has_value else after
    return found


def _bare(value: Any) -> Any:
    """A parsed section without the level that the parser adds for classes that take any argument."""
    if isinstance(value, Mapping):
        return {name: _bare(item) for name, item in value.items() if name != "dict_kwargs" or item}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


def other_networks(path: Path | None, what: str) -> str:
    """The line for a checkpoint whose networks are not those of the recipe, where ``what`` differs."""
    return (
        f"{path}: the checkpoint holds other networks than the recipe ({what}); leave the networks as they"
        " were, or start a new run by another --run_dir"
    )
