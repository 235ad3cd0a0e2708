"""Dispatch of verbs: from words to verbs, and from exceptions to one line and an exit status."""

import contextlib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lebm._version import __version__
from lebm.config.recipes import nearest
from lebm.config.request import check_flagged_data, helped, read_request
from lebm.errors import UserError, UserNotice, fail, printable

_GROUPS = {
    "train": {
        "fit -c RECIPE": "train a model; --resume RUN continues, --trainer.max_epochs 3 overrides the recipe",
        "validate RUN": "evaluate the last checkpoint of a run on the validation data",
        "test RUN": "evaluate the last checkpoint of a run on the test data",
        "sweep -c RECIPE --over K V": "train and evaluate a run per value; finished runs are skipped",
        "study run PLAN FOLDER": "train and evaluate the runs of a plan; study table PLAN prints its tables",
    },
    "use a trained model (RUN: a run folder, or a .ckpt or .safetensors file)": {
        "sample RUN -n 64": "draw images or sentences from the model",
        "condition RUN --data DATA": "fit a classifier on latents, for sample RUN --class 7",
        "restore RUN --data DATA": "complete partly hidden images, or remove noise",
        "reconstruct RUN": "encode and decode data: data above, reconstructions below",
        "interpolate RUN [A B]": "decode images or sentences between two ends",
        "traverse RUN": "vary one latent coordinate per row of a picture",
        "encode RUN": "write latents of data, on which a prior can be trained",
        "score RUN --data DATA": "write anomaly scores as CSV or parquet",
        "diagnose RUN": "run long prior and posterior chains, and report their faults",
        "evaluate RUN...": "compute every metric with its interval: evaluation.json and a table",
        "report RUN...": "write one HTML page that compares runs",
    },
    "share a model (docs/sharing.md)": {
        "pretrained": "list the trained models of the package; pretrained/NAME is a RUN",
        "export RUN FILE": "write the model as one .safetensors file",
        "push RUN USER/NAME": "upload the model to the Hugging Face Hub; hub:USER/NAME is a RUN",
    },
    "recipes": {
        "ls": "list the recipes with their titles",
        "cat RECIPE": "print a recipe",
        "cp RECIPE DEST": "copy a recipe; --for DATA fits the copy to your images or vectors",
        "validate-recipe RECIPE": "check a recipe and print what it trains; --time measures three steps",
    },
}
VERBS = [words.split()[0] for rows in _GROUPS.values() for words in rows]
_HOMES = {
    **dict.fromkeys(("pretrained", "ls", "cat", "cp", "validate-recipe"), "recipes"),
    **dict.fromkeys(("reconstruct", "interpolate", "traverse", "encode"), "latents"),
    **dict.fromkeys(("condition", "restore"), "conditions"),
    "push": "export",
    "report": "evaluate",
    "sweep": "study",
}
"""Modules of the verbs that share a module; every other verb has its own."""


def _overview() -> str:
    parts = ["usage: lebm VERB [...]        lebm VERB --help describes a verb"]
    for title, rows in _GROUPS.items():
        parts.append("\n".join([title, *(f"  {words:<26} {meaning}" for words, meaning in rows.items())]))
    parts.append("--version prints the version; LEBM_DEBUG=1 in the environment shows tracebacks.")
    parts.append("A RECIPE is a path or a name that ls prints. First steps: lebm fit -c quickstart")
    return "\n\n".join(parts)


def run(argv: list[str]) -> int:
    """Run the verb named by the first word and return the exit status."""
    path = list(sys.path)
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(_overview(), flush=True)
            return 0
        if argv[0] in ("-V", "--version", "version"):
            print(f"lebm {__version__}")
            return 0
        verb = _verb(argv[0])
        if any(word.partition("=")[0] == "--trust" for word in argv):
            # as ``python -m`` does, but last, so files of the folder cannot replace installed modules
            sys.path.append(os.getcwd())
        with _notices_as_lines():
            return verb(argv[1:]) or 0
    except SystemExit as stop:  # argparse has printed its message, or a signal ended the run
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe such as `lebm ls | head` has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:  # a UserError is a ValueError
        return fail(str(error), 2)
    finally:
        sys.path[:] = path


@contextlib.contextmanager
def _notices_as_lines() -> Iterator[None]:
    """Print each warning of lebm to the user as one line, once; leave other warnings unchanged."""
    shown_by_python: Any = warnings.showwarning
    shown = set()

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not issubclass(category, UserNotice):
            shown_by_python(message, category, *place)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"lebm: {printable(str(message))}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _verb(word: str) -> Callable[[list[str]], int | None]:
    if word.startswith("-"):
        raise UserError(f"the verb comes first, as in: lebm fit {word} ...; lebm --help lists the verbs")
    if word not in VERBS:
        hint = nearest(word, VERBS) or "; lebm --help lists the verbs"
        raise UserError(f"unknown verb {word!r}{hint}")
    if word in ("fit", "validate", "test"):
        return functools.partial(_train, word)
    module = importlib.import_module(f"lebm.cli.{_HOMES.get(word, word)}")
    return getattr(module, word.replace("-", "_"))


def _train(verb: str, argv: list[str]) -> int:
    """Read and check the request before the slow import of Lightning."""
    if helped(verb, argv):
        return 0
    request = read_request(verb, argv)
    check_flagged_data(request)
    from lebm.cli.training import run

    return run(request)
