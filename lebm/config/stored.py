"""The parts of a run folder's ``config.yaml`` that the verbs for evaluation use.

A recipe that the user names is trusted like a program. A run folder may be a stranger's, so its
``config.yaml`` is only data. The data section and the callbacks must be classes of lebm or of a package given
with ``--trust``. Nothing else in the file decides what is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer, loggers

import lebm.callbacks
from lebm.checkpoint.rebuild import build as check
from lebm.checkpoint.rebuild import resolve
from lebm.errors import UserError
from lebm.metrics.script import ScriptFeatures

__all__ = ["stored_logger", "stored_sections"]

_TOP = ("seed_everything", "latent_dim", "latent_dims", "checkpoint_every")
_ELSEWHERE = ("model", "data", "trainer", "run_dir", "ckpt_path", "include")
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_ONE = (None, 1, "1", "auto")
_CHOICES = {"accelerator": _ACCELERATORS, "devices": _ONE, "num_nodes": _ONE, "strategy": (None, "auto")}
_BUILT = ("callbacks", "logger", "plugins", "profiler", "model_registry", "default_root_dir")
_PLAIN = (bool, int, float, str)
_HERE = (None, "", ".")
_LOGGERS = {
    "TensorBoardLogger": ("name", "version", "log_graph", "default_hp_metric", "prefix"),
    "WandbLogger": (
        *("name", "version", "id", "offline", "project", "log_model", "prefix", "checkpoint_name"),
        *("entity", "group", "tags", "notes", "job_type", "mode", "add_file_policy"),
        *("anonymous", "reinit", "resume", "save_code"),
    ),
}


def stored_sections(
    run: Path, content: Mapping[str, Any], trust: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """The sections of a stored recipe that evaluation uses, and the names of the parts that it leaves out.

    The model is not one of the sections: it is rebuilt from the checkpoint.

    Args:
        run: the run folder, for messages and to look for links.
        content: its ``config.yaml`` as plain data.
        trust: packages besides lebm whose classes may be named.

    Raises:
        UserError: for a data section whose class or arguments are not allowed.
    """
    left_out = [str(key) for key in content if key not in (*_TOP, *_ELSEWHERE)]
    sections = {key: content[key] for key in _TOP if _is_plain(content.get(key))}
    data = content.get("data")
    if data:
        sections["data"] = _data(run, data, tuple(trust), left_out)
    trainer = content.get("trainer")
    sections["trainer"] = _trainer(run, trainer if isinstance(trainer, dict) else {}, tuple(trust), left_out)
    return sections, left_out


def _data(run: Path, block: Any, trust: tuple[str, ...], left_out: list[str]) -> dict[str, Any]:
    block = _bare(block)
    try:
        check(block, LightningDataModule, trust, "data")
    except UserError as error:
        raise UserError(f"{run / 'config.yaml'}: {error}") from error
    cache = block["init_args"].get("cache_dir")
    if cache is not None and not (isinstance(cache, str) and Path(cache).is_dir()):
        block["init_args"]["cache_dir"] = None  # a stored recipe may not create a folder
        left_out.append("data.init_args.cache_dir")
    return block


def _trainer(
    run: Path, section: dict[str, Any], trust: tuple[str, ...], left_out: list[str]
) -> dict[str, Any]:
    known = inspect.signature(Trainer.__init__).parameters
    kept: dict[str, Any] = {}
    for name, value in section.items():
        if name in _BUILT:
            continue
        if name in known and _is_plain(value) and value in _CHOICES.get(name, (value,)):
            kept[name] = value
        elif value is not None:
            left_out.append(f"trainer.{name}")
    left_out += [f"trainer.{name}" for name in ("plugins", "profiler", "model_registry") if section.get(name)]
    kept["callbacks"] = []
    for block in _listed(section.get("callbacks")):
        if _is_ours(block := _bare(block), trust):
            kept["callbacks"].append(block)
        else:
            left_out.append(f"callback {_name(block)}")
    logger = section.get("logger")
    if logger is None or isinstance(logger, bool):
        kept["logger"] = logger
        return kept
    kept["logger"] = []
    for block in _listed(logger):
        if harmless := stored_logger(run, block):
            kept["logger"].append(harmless)
        else:
            left_out.append(f"logger {_name(block)}")
    return kept


def _is_ours(block: Any, trust: tuple[str, ...]) -> bool:
    """Whether a callback and its arguments are of lebm's public callbacks or of a trusted package."""
    try:
        check(block, Callback, trust, "trainer.callbacks")
        cls = resolve(block["class_path"], trust)
        extractor = block["init_args"].get("extractor")
        if isinstance(extractor, Mapping) and issubclass(
            resolve(extractor["class_path"], trust), ScriptFeatures
        ):
            return False  # a TorchScript file is a program
    except UserError:
        return False
    if not cls.__module__.startswith("lebm."):
        return True
    return cls.__name__ in lebm.callbacks.__all__ and getattr(lebm.callbacks, cls.__name__) is cls


def stored_logger(run: Path, block: Any) -> dict[str, Any] | None:
    """A logger of a stored recipe, if no argument of it names a folder or a host; else ``None``.

    Args:
        run: the run folder.
        block: class path and arguments.

    Returns:
        The block without the arguments that are not set.
    """
    if not isinstance(block, dict) or not str(block.get("class_path")).startswith(
        "lightning.pytorch.loggers."
    ):
        return None
    name = _name(block)
    given = {**(block.get("init_args") or {}), **(block.get("dict_kwargs") or {})}
    if given.pop("save_dir", None) not in _HERE or given.pop("dir", None) not in _HERE:
        return None
    for key, value in given.items():
        plain = _is_plain(value) or (isinstance(value, list) and all(map(_is_plain, value)))
        if value is not None and not (key in _LOGGERS.get(name, ()) and plain and not _leads_out(value)):
            return None
    if name not in _LOGGERS or (name == "WandbLogger" and (run / "wandb" / "settings").exists()):
        return None  # wandb may look for hosts in that file
    arguments = inspect.signature(getattr(loggers, name).__init__).parameters
    kept = {key: value for key, value in given.items() if value is not None}
    init_args = {key: value for key, value in kept.items() if key in arguments} | {"save_dir": "."}
    others = {key: value for key, value in kept.items() if key not in arguments}
    out: dict[str, Any] = {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": init_args}
    return out | ({"dict_kwargs": others} if others else {})


def _leads_out(value: Any) -> bool:
    return isinstance(value, str) and (".." in value or value.startswith(("/", "~")) or "://" in value)


def _bare(block: Any) -> Any:
    """A block with ``class_path`` and ``init_args`` only; a block with other arguments as it is."""
    if not isinstance(block, dict) or block.get("dict_kwargs"):
        return block
    return {"class_path": block.get("class_path"), "init_args": dict(block.get("init_args") or {})}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _name(block: Any) -> str:
    path = block.get("class_path") if isinstance(block, Mapping) else block
    return str(path).rpartition(".")[2][:80]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, _PLAIN)
