"""The words after a verb that takes a recipe, read before Lightning is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lebm.config import blocks, checks, recipes
from lebm.errors import UserError

__all__ = ["Request", "read_request"]


_NAMES = (
    *("trainer", "model", "data", "run_dir", "latent_dim", "latent_dims", "checkpoint_every", "ckpt_path"),
    *("seed_everything", "include", "print_config", "help"),
)
"""First names of what the parser of recipes takes; other flags are refused before it is imported."""


@dataclass
class Request:
    """The words of the user, without those that LightningCLI does not know.

    Args:
        verb: ``fit``, ``validate``, ``test``, ``predict`` or ``validate-recipe``.
        typed: all words, as typed.
        argv: words for the parser.
        recipes: the recipes and overlays among the words, in order.
        files: the recipes, the overlays and the blocks that they include, in the order of reading.
        trust: further packages whose classes recipes may name.
        resume: whether to continue the run folder.
        run: the run folder to evaluate, if the user named one instead of a recipe.
        default_run_dir: the run folder if neither flag nor recipe names one.
    """

    verb: str
    typed: list[str]
    argv: list[str] = field(default_factory=list)
    recipes: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)
    resume: bool = False
    run: Path | None = None
    default_run_dir: Path = Path("runs/run")


def read_request(verb: str, typed: list[str]) -> Request:
    """Resolve recipe names, take out ``--resume`` and ``--trust``, and check the recipes.

    A run folder after ``--resume`` means its ``config.yaml``. As the first word of a verb that evaluates, it
    means its model, its data and those of its callbacks that belong to lebm.

    Raises:
        UserError: for a recipe or run folder that does not exist, or that :mod:`lebm.config.checks` refuses.
    """
    request = Request(verb, typed)
    words = list(typed)
    if verb == "validate-recipe" and words and not words[0].startswith("-"):
        words.insert(0, "-c")
    elif verb != "fit" and words and not words[0].startswith("-"):
        _use_run(request, Path(words.pop(0)))
    while words:
        word = words.pop(0)
        flag, has_value, value = word.partition("=")
        if flag == "--resume" and verb == "fit":
            request.resume = True
            if has_value or (words and not words[0].startswith("-")):
                _use_run(request, Path(value if has_value else words.pop(0)))
        elif flag in ("--trust", "-c", "--config"):
            if not has_value and not words:
                raise UserError(f"{flag} needs a value")
            value = value if has_value else words.pop(0)
            if flag == "--trust":
                _trust(request, value)
            else:
                _use_recipe(request, value)
        else:
            if flag == "--include":
                raise UserError("--include is for recipes only; here give the block as a recipe, by -c")
            if flag.startswith("--") and flag[2:].split(".")[0] not in _NAMES:
                raise UserError(f"unknown argument {flag}{recipes.nearest(flag[2:], _NAMES)}")
            request.argv.append(word)
    checks.check_arguments(request.argv)
    for path in request.files:
        checks.check_recipe(path)
    asks_help = {"-h", "--help"} & set(request.argv) or any(
        word.endswith(".help") or ".help=" in word for word in request.argv
    )
    if words := [word for word in typed[:1] if verb == "fit" and not word.startswith("-")]:
        raise UserError(f"{words[0]}: {_meant(words[0])}")
    if not request.recipes and not asks_help and not any(word.startswith("--model") for word in request.argv):
        raise UserError(f"name a recipe, as in: lebm {verb} -c quickstart (lebm ls prints what there is)")
    return request


def _meant(word: str) -> str:
    """What the user probably meant by a first word of ``fit`` that is not a flag."""
    if (Path(word) / "config.yaml").is_file():
        return f"a run is continued by --resume {word}"
    try:
        recipes.find(word)
    except UserError:
        return "fit takes a recipe by -c, as in: lebm fit -c quickstart (lebm ls prints what there is)"
    return f"did you mean -c {word}?"


def _use_recipe(request: Request, name: str) -> None:
    path = recipes.find(name)
    if not request.recipes:
        request.default_run_dir = Path("runs") / recipes.run_name(name)
    _read(request, path)


def _use_run(request: Request, run: Path) -> None:
    config = run / "config.yaml"
    if not config.is_file():
        what = "no such run folder" if not run.exists() else "not a run folder, it holds no config.yaml"
        raise UserError(f"{run}: {what}")
    if request.verb == "fit":
        _read(request, config)
    else:  # the parser gets only those sections of it that lebm.config.stored allows
        request.run = run
        request.recipes.append(config)
        request.files.append(config)
    request.argv += ["--run_dir", str(run)]


def _read(request: Request, path: Path) -> None:
    """Let the parser read the blocks that a recipe includes, and then the recipe."""
    request.recipes.append(path)
    for file in (*blocks.included(path, checks.load_recipe(path)), path):
        request.files.append(file)
        request.argv += ["-c", str(file)]


def _trust(request: Request, package: str) -> None:
    if not all(part.isidentifier() for part in package.split(".")) or package.split(".")[0] == "jsonargparse":
        raise UserError(f"--trust {package}: not the name of a package that can be trusted")
    request.trust.append(package)
