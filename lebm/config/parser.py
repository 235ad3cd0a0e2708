"""Construction of model, data and trainer from a request: a thin LightningCLI."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException
from torch import nn

import lebm.data  # noqa: F401  (a recipe names classes without their module, so the parser must know them)
from lebm.callbacks import ChainHealth, Divergence
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.component import recorded
from lebm.config import messages
from lebm.config.recipes import TRUSTED, merged
from lebm.config.request import DESCRIPTION, OWN_KEYS, Request, usage
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.strategies import refusal
from lebm.run.callbacks import PartSizes, Preemption, Progress, RunCheckpoint, SaveConfig, ShortRun
from lebm.run.folder import is_first_process
from lebm.run.loggers import WandbRun, point_into, with_defaults

_trusted_before: set[str] = set()


class RecipeCLI(LightningCLI):
    """A parser that builds the parts of a request; the caller runs them.

    With ``run=False`` LightningCLI adds no sub-commands, which would merge the hyper-parameters of a
    checkpoint given by ``--ckpt_path`` into the recipe and import any class that the checkpoint names.
    Without ``trainer_too``, trainer, loggers and callbacks are not built. Any error of the recipe is a
    UserError of one line.
    """

    def __init__(self, request: Request, trainer_too: bool = True) -> None:
        self.request = request
        self.trainer_too = trainer_too
        self.run_dir = request.default_run_dir
        self.first_step = 0
        self.wandb_id: str | None = None
        _allow(request.trust)
        with self._one_line():
            content, self.notes = merged(request.settings, request.trust)
            text = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
            super().__init__(
                LatentModel,
                LightningDataModule,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                parser_kwargs={
                    "parser_mode": "omegaconf+",
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "prog": f"lebm {request.verb}",
                    "usage": usage(request.verb),
                    "description": DESCRIPTION,
                },
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=[*(["-c", text] if content else []), *request.asked],
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({"trainer.use_distributed_sampler": False})
        # The model of a run folder comes from its checkpoint.
        parser.add_lightning_class_args(
            LatentModel,  # type: ignore[arg-type]
            "model",
            subclass_mode=True,
            required=self.request.run is None,
        )
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, (kind, meaning) in OWN_KEYS.items():
            parser.add_argument(f"--{name}", type=kind | None, default=None, help=meaning)
        parser.add_instantiator(recorded, nn.Module)  # checkpoints describe plain modules too

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # without Lightning's warning about arguments in code

    def before_instantiate_classes(self) -> None:
        chosen = self.config.run_dir or self.config.trainer.default_root_dir
        self.run_dir = Path(chosen or self.request.default_run_dir)
        self.config.run_dir = str(self.run_dir)
        self.config.trainer.default_root_dir = str(self.run_dir)
        strategy = self.config.trainer.strategy
        refused = refusal(strategy if isinstance(strategy, str) else (strategy or {}).get("class_path"))
        if refused is not None:  # before Lightning checks the device of the strategy
            raise UserError(refused)
        self.recipe = self.config
        if self.trainer_too:
            self.prepare_run()
            self.config = self.recipe.clone()
            point_into(self.config.trainer.logger, self.run_dir, self.wandb_id)

    def prepare_run(self) -> None:
        """Decide whether the run may start, before anything is built or written."""

    def instantiate_classes(self) -> None:
        if self.trainer_too:
            super().instantiate_classes()
            return
        bare = self.config.clone()
        bare.trainer.callbacks = bare.trainer.logger = None
        self.config_init = self.parser.instantiate(bare)
        self.model, self.datamodule = self.config_init.model, self.config_init.data

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        # config.yaml stores no logger folder, so a run folder can be moved and resumed.
        self.config = self.recipe
        chosen = self.config_init.trainer
        callbacks, plugins = _listed(chosen.callbacks), _listed(chosen.plugins)
        if not any(isinstance(p, ClusterEnvironment) for p in plugins) and SLURMEnvironment.detect():
            plugins += [SLURMEnvironment(auto_requeue=False)]  # requeueing saves in a signal handler
        ours: list[Any] = [WandbRun()]
        standard: dict[type, type] = {ChainHealth: ChainHealth, Divergence: Divergence}
        if chosen.enable_progress_bar is not False:
            standard[ProgressBar] = Progress
        if chosen.enable_model_summary is not False:
            standard[ModelSummary] = PartSizes
        for kind, made in standard.items():
            if not any(isinstance(callback, kind) for callback in callbacks):
                ours.append(made())
        for callback in callbacks:
            if isinstance(callback, Checkpoint) and getattr(callback, "dirpath", "") is None:
                callback.dirpath = str(self.run_dir / "checkpoints")  # type: ignore[attr-defined]
        if chosen.log_every_n_steps is None:
            ours.append(ShortRun())
        if chosen.enable_checkpointing is not False:
            ours.append(RunCheckpoint(self.run_dir, self.config.checkpoint_every))
        ours.append(Preemption())  # last, because it ends the run
        trainer = super().instantiate_trainer(
            callbacks=[*callbacks, *ours],
            logger=with_defaults(chosen.logger, self.run_dir, self.first_step),
            plugins=[*plugins, AtomicCheckpointIO()],
            **kwargs,
        )
        self._check_processes(trainer)
        return trainer

    def _check_processes(self, trainer: Trainer) -> None:
        """Reject processes that do not know the rank of the writer."""
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            chosen = self.recipe.trainer.strategy
            name = chosen if isinstance(chosen, str) else chosen.class_path
            raise UserError(
                f"trainer.strategy {name}: forked or spawned processes cannot report to the process that"
                " writes the run folder; use --trainer.strategy ddp"
            )
        silent = getattr(rank_zero_only, "rank", 0) != 0  # then the files of the first process would be lost
        if trainer.is_global_zero and (silent or not is_first_process()):
            names = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "LOCAL_RANK", "NODE_RANK")
            left = [name for name in names if os.environ.get(name, "0") != "0"]
            raise UserError(
                f"{', '.join(f'{name}={os.environ[name]}' for name in left)} in the environment names a"
                f" process other than the first, but this run has one process; run unset {' '.join(left)}"
            )

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """Convert errors of the parser and of constructors to one line."""
        try:
            yield
        except UserError:
            raise
        except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
            options = [str(key) for key in self.parser.get_defaults().keys(branches=True)]
            line = messages.parser_line(error.message or str(error), self.request.settings, options)
            raise UserError(line) from error
        except OmegaConfBaseException as error:
            raise UserError(messages.interpolation_line(error, self.request.settings)) from error
        except (MisconfigurationException, ModuleNotFoundError) as error:
            trainer = getattr(self, "config", {}).get("trainer") or {}
            raise UserError(messages.trainer_line(error, trainer)) from error
        except (TypeError, ValueError) as error:
            where = f"{self.request.recipes[0]}: " if self.request.recipes else ""
            raise UserError(f"{where}{messages.constructor_line(error)}") from error


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] if value else []


def _allow(trust: list[str]) -> None:
    """Let recipes name only classes of trusted packages, checked by jsonargparse before an import."""
    trusted = {*TRUSTED, *trust}
    set_parsing_settings(
        omegaconf_absolute_to_relative_paths=True,
        import_path_denylist=["*", *sorted(_trusted_before - trusted)],
        import_path_allowlist=sorted(trusted),
    )
    _trusted_before.update(trust)
