"""Flags that several verbs share, and a parser that reports user errors in one line."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from lebm.config.recipes import nearest
from lebm.errors import UserError

_RUN = "run folder, .ckpt or .safetensors file, pretrained/NAME, or hub:USER/NAME[@REVISION]"


class VerbParser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` that raises errors as one line, without the usage text.

    Raises:
        UserError: for a word or a value that the verb does not take, with the most similar flag.
    """

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(f"lebm {verb}", description=description, allow_abbrev=False)

    def flag(self, name: str, text: str, **options: Any) -> None:
        """Add a flag. Its default value is added to the help ``text``, unless the text says it in words."""
        if options.get("default") not in (None, []) and "default: " not in text:
            text += " (default: %(default)s)"
        self.add_argument(name, help=text, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words in any order: files may follow a flag."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        help_ = f"{self.prog} --help lists the arguments"
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if not unknown:
            raise UserError(f"{self.prog}: {message}; {help_}")
        words = [word.partition("=")[0] for word in rest.split()]
        flag = next((word for word in words if word.startswith("-")), words[0])
        hint = nearest(flag, [name for name in self._option_string_actions if name.startswith("--")])
        raise UserError(f"{self.prog}: unknown argument {flag}{hint or f'; {help_}'}")


def run_parser(
    verb: str,
    description: str,
    several: bool = False,
    steps: int | None = None,
    split: str | None = "the test split",
) -> VerbParser:
    """Return the parser of a verb that takes a run and data, with the flags that these verbs share.

    ``split`` is the default of ``--split``, in words if it depends on the data. ``None`` omits this flag, and
    an empty text omits ``--data`` too.
    """
    parser = VerbParser(verb, description)
    parser.add_argument("run", type=Path, nargs="+" if several else None, help=_RUN)
    length = "as in training for sample, as in evaluation for other verbs" if steps is None else str(steps)
    text = f"steps per chain (default: {length}); 0 runs no chain"
    parser.flag("--steps", text, type=partial(count, least=0), default=steps)
    parser.flag("--seed", "random seed of the chains (default: the seed of the run)", type=int)
    add_weights(parser)
    device = "device of the model; auto uses a GPU if there is one"
    parser.flag("--device", device, choices=("auto", "cpu", "cuda"), default="auto")
    batch = "number of rows per batch, which does not change the result"
    parser.flag("--batch-size", batch, type=count, default=100)
    parser.flag("--out", "output file (default: a new file in the run folder)", type=Path)
    parser.flag("--force", "replace --out if it exists", action="store_true")
    if split != "":
        places = "folder of parquet files or images, .npy or .npz file, text file, or embedded:mnist"
        parser.flag("--data", f"Hub name, {places} (default: the data of the run)")
    if split:
        default = None if " " in split else split
        parser.flag("--split", f"split of the data (default: {split})", default=default)
    return parser


def free(target: Path, force: bool, another: str = "--out") -> Path:
    """Return the file to write; reject an existing one unless ``force`` is set."""
    if target.exists() and not force:
        raise UserError(f"{target} exists; choose another {another} or add --force")
    return target


def add_weights(parser: VerbParser, who: str = "") -> None:
    """Add ``--weights`` and ``--trust`` to a parser; ``who`` is appended to the help of ``--trust``."""
    weights = "averaged weights if the run kept them, or the raw weights"
    parser.flag("--weights", weights, choices=("ema", "raw"), default="ema")
    trust = f"package whose classes the checkpoint may name, repeatable{who}"
    parser.flag("--trust", trust, action="append", default=[], metavar="PACKAGE")


def count(text: str, least: int = 1) -> int:
    """Parse a whole number of at least ``least``, for ``argparse``."""
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, not {text!r}")
    return int(text)
