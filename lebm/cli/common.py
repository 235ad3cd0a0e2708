"""Parts that the verbs share: their parser and flags, the opened run, and the files of results."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lebm import hub
from lebm.config.recipes import nearest
from lebm.config.request import check_data
from lebm.errors import UserError, printable, tell
from lebm.files import replaced, write_text
from lebm.run.folder import free_name

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lebm.data import SplitData
    from lebm.data.rows import Rows

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
    steps: int | str = "as in evaluation",
    split: str | None = "the test split",
    out: str = "output file (default: a new file in the run folder)",
    kind: str = "",
) -> VerbParser:
    """Return the parser of a verb that takes a run and data, with the flags that these verbs share.

    ``steps`` and ``split`` are the defaults of their flags, in words if they depend on the run or the data.
    A ``split`` of ``None`` omits this flag, and an empty text omits ``--data`` too. ``out`` is the help of
    ``--out``, and ``kind`` names the chains of ``--steps``.
    """
    parser = VerbParser(verb, description)
    parser.add_argument("run", type=Path, nargs="+" if several else None, help=_RUN)
    text, length = f"steps per {kind}chain (default: {steps}); 0 runs no chain", partial(count, least=0)
    parser.flag("--steps", text, type=length, default=None if isinstance(steps, str) else steps)
    parser.flag("--seed", "random seed of the chains (default: the seed of the run)", type=int)
    add_weights(parser)
    device = "device of the model; auto uses a GPU if there is one"
    parser.flag("--device", device, choices=("auto", "cpu", "cuda"), default="auto")
    batch = "number of rows per batch, which does not change the result"
    parser.flag("--batch-size", batch, type=count, default=100)
    parser.flag("--out", out, type=Path)
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


def home(run: Path) -> Path:
    """Return the folder for results: the run folder, the folder of a model file, or the working folder."""
    return run if run.is_dir() else run.parent if run.exists() else Path()


def beside(run: Path, name: str) -> Path:
    """Return the path of ``name`` in the run folder, or beside a model file with its stem as a prefix."""
    return home(run) / (name if run.is_dir() else f"{run.stem}.{name}")


def target_file(chosen: argparse.Namespace, name: str, suffix: str) -> Path:
    """Return the path to write: ``--out`` if it is free, else the next free name in :func:`home`."""
    if chosen.out is not None:
        return free(chosen.out, chosen.force)
    folder = home(chosen.run)
    if suffix != ".csv" and chosen.run.is_dir():
        folder = folder / "images"
    return free_name(folder / name, suffix)


class Opened:
    """A run opened for a verb, whose name and data are checked before torch is imported.

    Attributes:
        chosen: the flags; a missing seed is replaced by the seed of the run.
        model: the model of the run, on the requested device.
        encode_steps: length of the posterior chains of the model.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        hub.located(chosen.run, download=False)
        check_data(getattr(chosen, "data", None))
        if chosen.out is not None and not chosen.out.is_dir():
            free(chosen.out, chosen.force)
        import torch

        import lebm

        if chosen.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no CUDA device; use --device cpu or auto")
        device = "cuda" if chosen.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.model = lebm.load(chosen.run, trust=chosen.trust, map_location=device, weights=chosen.weights)
        self.chosen = chosen
        self.encode_steps = self.model.evaluation_steps if chosen.steps is None else chosen.steps
        if chosen.seed is None:
            chosen.seed = self.model.seed

    def data(self, path: str | None, limit: int | None = None) -> SplitData:
        """Return the data module of the run, or of other data in the form that the model takes."""
        from lebm.evaluation.reopen import reopen

        return reopen(self.chosen.run, path, self.model, limit, self.chosen.trust)

    def rows(self, limit: int | None = None) -> Rows:
        """Return the rows of ``--data`` and ``--split``."""
        return self.data(self.chosen.data).rows(self.chosen.split, limit)

    def each(self, method: Callable[..., Tensor], rows: Rows) -> Tensor:
        """Return the results of a model method for all rows, by posterior chains, in CPU memory."""
        import torch

        return torch.cat([part.cpu() for part in self.parts(method, rows)])

    def parts(self, method: Callable[..., Any], rows: Rows) -> Iterator[Any]:
        """Yield the results of a model method batch by batch, with the noise of a test pass."""
        for index, x in rows.batches(self.chosen.batch_size):
            noise = encode_noise(self.chosen.seed, index)
            yield method(x.to(self.model.device), steps=self.encode_steps, generator=noise)

    def decoded(self, z: Tensor) -> Tensor:
        """Return the observations of latents ``(n, d)``, in CPU memory."""
        from lebm.plots import decoded

        return decoded(self.model.decode, z.to(self.model.device), self.chosen.batch_size)

    def write(
        self, name: str, x: Tensor, picture: Callable[[Tensor], np.ndarray], form: str | None = None
    ) -> Path:
        """Write observations as ``.npy``, or as a PNG file arranged by ``picture`` (images only)."""
        import numpy as np

        from lebm.plots.grids import write_png

        chosen, shape = self.chosen, tuple(x.shape[1:])
        array = not is_image(x) or (chosen.out or Path()).suffix == ".npy"
        form = form or ("npy" if array else "png")
        target = target_file(chosen, name, f".{form}")
        if form == "png":
            if not is_image(x):
                raise UserError(f"{name} of shape {shape} are not images; use --format npy")
            if target.suffix.lower() != ".png":
                raise UserError(f"--out {target}: pictures are written as .png")
            return write_png(target, picture(x))
        if target.suffix != ".npy":
            raise UserError(f"--out {target}: observations of shape {shape} are written as .npy")
        with replaced(target) as unfinished, unfinished.open("wb") as file:
            np.save(file, x.numpy())
        return target

    def report(self, what: str, target: Path, chain: str = "posterior") -> None:
        """Print what was written, where and how; ``chain`` is ``prior``, ``posterior``, ``image`` or text."""
        if chain in ("prior", "posterior", "image"):
            given = self.encode_steps if chain == "posterior" else self.chosen.steps
            steps = self.model.chain_steps(chain) if given is None else given
            settings = self.model.chain_settings if chain == "prior" and given is None else {}
            direct = settings.get("direct_draws")
            chain = f"chain of {steps} steps" if steps else ""
            if direct is not None:
                chain = f"draws of the base, {direct['steps']} steps of independence Metropolis"
        weights = f"{self.model.loaded_weights} weights of {self.chosen.run}"
        tell(f"lebm: {what} in {target} ({chain}{', ' if chain else ''}seed {self.chosen.seed}, {weights})")


def is_image(x: Tensor) -> bool:
    """Return whether observations ``(B, *event)`` are images with one or three channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def encode_noise(seed: int, index: Tensor | range) -> Any:
    """Return the noise of a test pass for the rows with these numbers."""
    from lebm.samplers.noise import Noise

    return Noise.samples(seed, "encode", index=index)


def say(sentences: Iterable[str], out: Path | None) -> None:
    """Print one sentence per line, and write the lines to ``out`` if it is given."""
    text = "".join(f"{sentence}\n" for sentence in sentences)
    print(printable(text), end="")
    if out is not None:
        write_text(out, text)
