"""The arguments of a verb that takes a recipe, parsed once, before Lightning is imported."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lebm.config import recipes
from lebm.config.recipes import Setting, load_recipe, read
from lebm.errors import UserError
from lebm.files import EMBEDDED, HUB_NAME, embedded

OWN_KEYS: dict[str, tuple[Any, str]] = {
    "run_dir": (str, "folder of the run (default: runs/<recipe>)"),
    "latent_dim": (int, "number of latent coordinates, for references ${latent_dim}"),
    "latent_dims": (list[int], "latent coordinates per layer, bottom first, for references ${latent_dims}"),
    "checkpoint_every": (int, "steps between checkpoints (default: one epoch)"),
    "ckpt_path": (str, "checkpoint to start from or to evaluate"),
}
"""Type and meaning of the keys of a recipe that LightningCLI does not have."""
_SECTIONS = (*OWN_KEYS, "trainer", "model", "data", "seed_everything")
_OF_TRAINING = ("devices", "num_nodes", "strategy", "plugins", "profiler", "default_root_dir")
DESCRIPTION = """\
A recipe (-c: a path, or a name that `lebm ls` prints) contains all settings; later -c files and flags
override them. A run folder contains its recipe, so --resume RUN and `lebm test RUN` need no -c."""
_USAGE = {
    "fit": "-c RECIPE [-c OVERLAY ...] [--KEY VALUE ...]\n       lebm fit --resume RUN [--KEY VALUE ...]",
    "validate-recipe": "RECIPE [--time] [--KEY VALUE ...]   (--time: measure three steps)",
    "test": "RUN [--KEY VALUE ...]\n       lebm {verb} -c RECIPE --ckpt_path FILE [--KEY VALUE ...]",
}
_PAGE = """\
often used
  --run_dir DIR                 folder of the run (default: runs/<recipe>){of_fit}
  --data.path PATH              data: a folder, files, or a name on the Hub
  --seed_everything N           seed of weights, data order and noise (default: 0)
  --latent_dim N                number of latent coordinates
  --trainer.max_epochs N        number of epochs; --trainer.max_steps N limits the steps
  --trainer.accelerator gpu     device type; for 8 GPUs add --trainer.devices 8 --trainer.strategy ddp
  --trainer.precision KIND      number format of the networks, such as bf16-mixed
  --ckpt_path FILE              checkpoint to start from or to evaluate
  --trust PACKAGE               your own package, whose classes recipes may name; repeatable
  --print_config                print the recipe with every default, without a run

more
  lebm cat RECIPE                  print a recipe; override its keys by --KEY VALUE
  lebm fit --model.help LatentMLE  arguments of a method
  lebm fit --data.help ImageData   arguments of a data module
  lebm fit --help all              all flags, including Lightning's Trainer, in about 480 lines
"""
_OF_FIT = """
  --resume [RUN]                run folder to continue (default: the run folder of the recipe)
  --checkpoint_every N          steps between checkpoints (default: one epoch)
  -c loggers/wandb              overlay, here for logs in Weights & Biases"""


@dataclass
class Request:
    """A parsed command line.

    Args:
        verb: the verb.
        typed: all words.
        settings: recipes, their blocks, overlays and flags, in the order in which they take effect.
        recipes: the recipes and overlays among the words, in order.
        asked: words that request help or the whole configuration from the parser.
        trust: further packages whose classes recipes may name.
        resume: whether to continue the run folder.
        run: the run folder to evaluate, if the user named one in place of a recipe.
        default_run_dir: the run folder if neither flag nor recipe names one.
    """

    verb: str
    typed: list[str]
    settings: list[Setting] = field(default_factory=list)
    recipes: list[Path] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)
    resume: bool = False
    run: Path | None = None
    default_run_dir: Path = Path("runs/run")

    @property
    def flags(self) -> dict[str, Any]:
        """Return the values of the flags by key, without ``init_args``."""
        return {setting.short_key: setting.value for setting in self.settings if setting.source is None}


def read_request(verb: str, typed: list[str]) -> Request:
    """Parse the words, find the recipes by name, and read them.

    A run folder after ``--resume`` stands for its ``config.yaml``. As the first word of a verb that
    evaluates, it stands for its ``config.yaml`` on one device, with the model of the checkpoint.

    Raises:
        UserError: for a recipe or run folder that does not exist or cannot be read, and for an unknown flag.
    """
    request = Request(verb, typed)
    words = list(typed)
    if words and not words[0].startswith("-"):
        if verb == "fit":
            raise UserError(f"{words[0]}: use -c {words[0]} for a recipe, or --resume {words[0]} for a run")
        if verb == "validate-recipe":
            _use_recipe(request, words.pop(0))
        else:
            _use_run(request, Path(words.pop(0)))
    while words:
        flag, has_value, value = words.pop(0).partition("=")
        if flag == "--resume" and verb == "fit":
            request.resume = True
            if has_value or _is_value(words):
                _use_run(request, Path(value if has_value else words.pop(0)))
            continue
        if re.fullmatch(r"-h|--help|--print_\w+|--.*\.help", flag):
            request.asked.append(f"{flag}={value}" if has_value else flag)
            if flag.endswith(".help") and not has_value and _is_value(words):
                request.asked.append(words.pop(0))
            continue
        known = flag in ("-c", "--config", "--trust") or re.split(r"[.+]", flag[2:])[0] in _SECTIONS
        if not flag.startswith("-") or not known:
            raise UserError(f"unknown argument {flag}{recipes.nearest(flag.lstrip('-'), _SECTIONS)}")
        if not has_value and not _is_value(words):
            raise UserError(f"{flag} needs a value")
        value = value if has_value else words.pop(0)
        if flag == "--trust":
            parts = value.split(".")
            if not all(map(str.isidentifier, parts)) or parts[0] == "jsonargparse":
                raise UserError(f"--trust {value}: not a package name that can be trusted")
            request.trust.append(value)
        elif flag in ("-c", "--config"):
            _use_recipe(request, value)
        else:
            try:
                loaded = yaml.safe_load(value)
            except yaml.YAMLError:
                loaded = value
            # the parser reads numbers and other text
            is_loaded = isinstance(loaded, dict | list | bool) or value == "null"
            request.settings.append(Setting(flag[2:], loaded if is_loaded else value, None))
    has_model = any("model" in setting.sections for setting in request.settings)
    if not (request.recipes or request.asked or has_model):
        raise UserError(f"name a recipe, as in: lebm {verb} -c quickstart (lebm ls lists the recipes)")
    return request


def _is_value(words: list[str]) -> bool:
    """Return whether the next word is the value of the flag before it."""
    return bool(words) and re.match(r"-[^\d.]", words[0]) is None


def _use_recipe(request: Request, name: str) -> None:
    path = recipes.find(name)
    if not request.recipes:
        request.default_run_dir = Path("runs") / recipes.run_name(name)
    request.recipes.append(path)
    request.settings += read(path)


def _use_run(request: Request, run: Path) -> None:
    path = run / "config.yaml"
    if not path.is_file():
        what = "no such run folder" if not run.exists() else "not a run folder, because it has no config.yaml"
        raise UserError(f"{run}: {what}")
    content = load_recipe(path)
    if request.verb != "fit":
        request.run = run
        for name in ("model", "ckpt_path"):
            content.pop(name, None)
        trainer = content.get("trainer") or {}
        content["trainer"] = {name: trainer[name] for name in trainer if name not in _OF_TRAINING}
    request.recipes.append(path)
    request.settings += [Setting("", content, path), Setting("run_dir", str(run), None)]


def usage(verb: str) -> str:
    """Return the usage line of a verb."""
    return f"lebm {verb} {_USAGE.get(verb, _USAGE['test']).format(verb=verb)}"


def helped(verb: str, argv: list[str]) -> bool:
    """Print the first help page if the words request ``--help``.

    For ``--help all`` the parser prints the rest, so ``all`` is removed from ``argv``.
    """
    asked = next((number for number, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is None:
        return False
    of_fit = _OF_FIT if verb == "fit" else ""
    print(f"usage: {usage(verb)}\n\n{DESCRIPTION}\n\n{_PAGE.format(of_fit=of_fit)}", end="")
    if argv[asked + 1 : asked + 2] != ["all"]:
        return True
    print()
    del argv[asked + 1]
    return False


def check_data(path: str | None, flag: str = "--data") -> None:
    """Reject data that are neither a file, a folder, packaged data, nor a possible Hub name."""
    if not path or os.path.exists(os.path.expanduser(path)):
        return
    if path.startswith(EMBEDDED):
        embedded(path, flag)
    elif path.startswith(("./", "../", "/", "~")) or not HUB_NAME.fullmatch(path):
        folder = Path(path).expanduser().parent
        names = [str(folder / file.name) for file in folder.iterdir()] if folder.is_dir() else []
        raise UserError(f"{flag} {path!r}: no such file or folder{recipes.nearest(path, names)}")


def check_flagged_data(request: Request) -> None:
    """Reject missing data of a flag; with ``--trust`` the data module decides what a path means."""
    path = request.flags.get("data.path")
    if isinstance(path, str) and not request.trust:
        check_data(path, "--data.path")
