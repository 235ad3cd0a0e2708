"""From words to verbs, and from exceptions to one line and an exit status."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lebm._version import __version__
from lebm.config.request import check_flagged_data, helped, read_request
from lebm.errors import UserError, UserNotice, fail, printable

_GROUPS = {
    "train": {
        "fit -c RECIPE": "train; --resume continues, --trainer.max_epochs 3 and the like override the recipe",
        "validate RUN": "evaluate the last checkpoint of a run on the validation data",
        "test RUN": "the same on the test data",
        "sweep -c RECIPE --over K V": "train and evaluate every value or a grid; skip what is done",
        "study run PLAN FOLDER": "the same for a plan of many recipes; study table PLAN prints its tables",
    },
    "use a trained run (a run folder, or a .ckpt or .safetensors file)": {
        "sample RUN -n 64": "pictures or sentences from the model",
        "condition RUN --data DATA": "fit classes on latents, for sample RUN --class 7",
        "restore RUN --data DATA": "complete images that are half hidden, or clean noisy ones",
        "reconstruct RUN": "data above, reconstructions below",
        "interpolate RUN [A B]": "images or sentences on the way from one to another",
        "traverse RUN": "one latent coordinate varied per row of a picture",
        "encode RUN": "latents of data, as arrays that a prior can be trained on",
        "score RUN --data DATA": "anomaly scores as CSV or parquet",
        "diagnose RUN": "long chains from prior and posterior, and what is wrong with them",
        "evaluate RUN...": "every metric with its interval, in evaluation.json and a table",
        "report RUN...": "one HTML page that compares runs",
    },
    "share a model (docs/sharing.md)": {
        "pretrained": "the trained models that ship with lebm; pretrained/NAME is a RUN",
        "export RUN FILE": "one .safetensors file for others to open",
        "push RUN USER/NAME": "to the Hugging Face Hub, with a card; hub:USER/NAME is a RUN",
    },
    "recipes": {
        "ls": "names and titles",
        "cat RECIPE": "print one",
        "cp RECIPE DEST": "start your own from one; --for DATA fits it to your images or vectors",
        "validate-recipe RECIPE": "print what it would train; --time measures three steps",
    },
}
VERBS = [words.split()[0] for rows in _GROUPS.values() for words in rows]
_OF_RECIPES = ("fit", "validate", "test")
_HOMES = {
    **dict.fromkeys(("pretrained", "ls", "cat", "cp"), "recipes"),
    **dict.fromkeys(("reconstruct", "interpolate", "traverse", "encode"), "latents"),
    **dict.fromkeys(("condition", "restore"), "conditions"),
    "push": "export",
}
"""Modules of the verbs that share one; the others are modules of their own."""


def _overview() -> str:
    parts = ["usage: lebm VERB [...]        lebm VERB --help explains a verb"]
    for title, rows in _GROUPS.items():
        parts.append("\n".join([title, *(f"  {words:<26} {meaning}" for words, meaning in rows.items())]))
    parts.append("--version prints the version; LEBM_DEBUG=1 in the environment shows tracebacks.")
    parts.append("A RECIPE is a path or a name that ls prints. First steps: lebm fit -c quickstart")
    return "\n\n".join(parts)


def run(argv: list[str]) -> int:
    """Run the verb named by the first word and return the exit status."""
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(_overview(), flush=True)
            return 0
        if argv[0] in ("-V", "--version", "version"):
            print(f"lebm {__version__}")
            return 0
        verb = _verb(argv[0])
        with _own_modules(argv[1:]), _notices_as_lines():
            return verb(argv[1:])
    except SystemExit as stop:  # argparse has spoken already, or a signal ended the run
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe such as `lebm ls | head` has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RecursionError:
        return fail("a recipe or checkpoint is nested too deeply", 2)
    except (OSError, ValueError) as error:  # a UserError is a ValueError
        return fail(str(error), 2)
    except RuntimeError as error:
        if "home directory" not in str(error):  # what pathlib says of ~
            raise
        return fail("this user has no home directory for ~/.cache; set HOME to a folder", 2)


@contextlib.contextmanager
def _own_modules(words: list[str]) -> Iterator[None]:
    """With ``--trust``, modules of the working folder can be imported, which a console script, unlike
    ``python -m``, does not allow. The folder comes last, so that no file in it takes the place of an
    installed module.
    """
    if not any(word.partition("=")[0] == "--trust" for word in words) or (here := os.getcwd()) in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path[:] = [folder for folder in sys.path if folder != here]


@contextlib.contextmanager
def _notices_as_lines() -> Iterator[None]:
    """Print each warning that lebm gives its users as a line, once; other warnings stay as they are."""
    shown_by_python: Any = warnings.showwarning
    shown = set()

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not issubclass(category, UserNotice):
            shown_by_python(message, category, *place)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"lebm: {printable(str(message))}", file=sys.stderr, flush=True)

    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = shown_by_python


def _verb(word: str) -> Callable[[list[str]], int]:
    if word.startswith("-"):
        raise UserError(f"the verb comes first, as in: lebm fit {word} ...; lebm --help lists the verbs")
    if word not in VERBS:
        near = difflib.get_close_matches(word, VERBS, n=1)
        raise UserError(
            f"unknown verb {word!r}"
            + (f", did you mean {near[0]!r}?" if near else "; lebm --help lists the verbs")
        )
    if word in _OF_RECIPES:
        return functools.partial(_train, word)
    module = importlib.import_module(f"lebm.cli.{_HOMES.get(word, word.replace('-', '_'))}")
    return getattr(module, word.replace("-", "_"))


def _train(verb: str, argv: list[str]) -> int:
    """Read and check the request before Lightning takes its seconds to import."""
    if helped(verb, argv):
        return 0
    request = read_request(verb, argv)
    check_flagged_data(request)
    from lebm.cli.training import run

    return run(request)
