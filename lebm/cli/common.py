"""What the verbs share: flags, the model and the data of a run, where results go, and the one line of an
error.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.data_path import check_data
from lebm.cli.flags import VerbParser
from lebm.errors import UserError, printable
from lebm.files import is_inside, replaced
from lebm.run.folder import check_run

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.config.run_data import Images, SentenceRows
    from lebm.estimators.base import LatentEstimator

__all__ = [
    "add_data",
    "add_weights",
    "chain_words",
    "count",
    "encode_noise",
    "fail",
    "home",
    "load_model",
    "open_data",
    "pieces",
    "report",
    "run_parser",
    "say",
    "spelled",
    "target_file",
    "tell",
]

_RUN = "a run folder, a .ckpt or .safetensors file, pretrained/NAME, or hub:USER/NAME[@REVISION]"


def run_parser(
    verb: str, description: str, several: bool = False, steps: int | None = None
) -> argparse.ArgumentParser:
    """The parser of a verb that takes a run: the flags that all of them have."""
    parser = VerbParser(f"lebm {verb}", description=description, allow_abbrev=False)
    if several:
        parser.add_argument("run", type=Path, nargs="+", help=f"{_RUN}, any number of them")
    else:
        parser.add_argument("run", type=Path, help=_RUN)
    length = (
        "that of training (sample) or evaluation if not given" if steps is None else f"{steps} if not given"
    )
    parser.add_argument("--steps", type=count, default=steps, help=f"length of the chain; {length}")
    parser.add_argument("--seed", type=int, help="of the chain's noise; the run's own if not given")
    add_weights(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--batch-size",
        type=count,
        default=100,
        help="how many at once (default %(default)s); the result does not depend on it",
    )
    parser.add_argument("--out", type=Path, help="file to write; in the run folder if not given")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")
    return parser


def add_weights(parser: argparse.ArgumentParser, who: str = "") -> None:
    """Add the flags that say which weights of a checkpoint are used, and which classes it may name.

    Args:
        parser: the parser of a verb.
        who: what follows in the help on ``--trust``.
    """
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="averaged weights where the run kept them, or the plain ones",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help=f"a package whose classes the checkpoint may name{who}",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name data."""
    parser.add_argument(
        "--data",
        help=(
            "Hub name, folder of parquet files or images, text file, or embedded:mnist; the run's own if not"
            " given"
        ),
    )
    parser.add_argument("--split", help="split of the data; its test split if not given")


def count(text: str) -> int:
    """A whole number of at least 1, for ``argparse``."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def home(run: Path) -> Path:
    """Where results go: the run folder, the folder of a file, or the working folder for the name of a
    model.
    """
    return run if run.is_dir() else run.parent if run.exists() else Path()


def target_file(chosen: argparse.Namespace, name: str, suffix: str) -> Path:
    """Where to write: ``--out`` if it is free, else the next free name in :func:`home`."""
    if chosen.out is not None:
        if chosen.out.exists() and not chosen.force:
            raise UserError(f"{chosen.out} exists; choose another --out or add --force")
        return chosen.out
    folder = home(chosen.run)
    if suffix != ".csv" and chosen.run.is_dir():
        folder = folder / "images"
        if not is_inside(folder, chosen.run):
            raise UserError(
                f"{folder}: a link out of the run folder, which is not followed; choose a place with --out"
            )
    candidates = (
        folder / f"{name}{'' if number == 1 else f'-{number}'}{suffix}" for number in range(1, 10**6)
    )
    return next(
        path
        for path in candidates
        if not _taken(path) and not (suffix == ".csv" and _taken(path.with_suffix(".parquet")))
    )


def load_model(chosen: argparse.Namespace) -> LatentEstimator:
    """The model of the run that was named, on the device that was asked for.

    The names of the run and the data are checked before torch is imported.

    What kind of weights it has is put into ``chosen.loaded_weights``.
    """
    check_run(chosen.run)
    check_data(getattr(chosen, "data", None), run=chosen.run)
    import torch

    import lebm

    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device that torch can use; lebm doctor says more")
    device = "cuda" if chosen.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = lebm.load(chosen.run, trust=chosen.trust, map_location=device, weights=chosen.weights)
    chosen.loaded_weights = model.loaded_weights
    return model


def open_data(chosen: argparse.Namespace, model: LatentEstimator, limit: int | None) -> Images | SentenceRows:
    """The data to look at, in the form that the model takes."""
    from lebm.config.run_data import open_for

    return open_for(model, chosen.run, chosen.data, chosen.split, limit)


def encode_noise(seed: int, index: Tensor) -> Any:
    """The noise of a test pass, so that scores agree with it where rows do."""
    from lebm.samplers.noise import Noise

    return Noise.samples(seed, "encode", index=index)


def pieces(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges ``(start, stop)`` that cover ``n`` rows, ``size`` at a time."""
    return ((start, min(n, start + size)) for start in range(0, n, size))


def spelled(model: LatentEstimator, x: Tensor) -> list[str] | None:
    """Observations as sentences; ``None`` if the model is of something else."""
    return None if model.sentences is None else model.sentences.spell(x)


def chain_words(model: LatentEstimator, given: int | None, name: str) -> str:
    """Length of the chain ``prior``, ``posterior`` or ``image``, for a message; empty if there is none."""
    steps = given or model.chain_steps(name)
    return f"chain of {steps} steps, " if steps else ""


def report(what: str, target: Path, chosen: argparse.Namespace, seed: int, chain: str) -> None:
    """Say what was written, where, and how it was made."""
    tell(f"lebm: {what} in {target} ({chain}seed {seed}, {chosen.loaded_weights} weights of {chosen.run})")


def _taken(path: Path) -> bool:
    return os.path.lexists(path)  # also by a link that leads nowhere, since writing would follow it


def say(sentences: Iterable[str], out: Path | None) -> None:
    """Print sentences, one a line, and write them to a file if one is named."""
    text = "".join(f"{sentence}\n" for sentence in sentences)
    print(printable(text), end="")
    if out is not None:
        with replaced(out) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def tell(line: str) -> None:
    """Print a line on the standard output, at once and without control characters."""
    print(printable(line), flush=True)


def fail(message: str, status: int) -> int:
    """Print one line on stderr (and the traceback where ``LEBM_DEBUG`` asks for it); returns ``status``."""
    if os.environ.get("LEBM_DEBUG", "0") not in ("", "0") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"lebm: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status
