"""What the verbs share: the model and the data of a run, and where results go."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.config.request import check_data
from lebm.errors import UserError, printable, tell
from lebm.files import replaced, write_text
from lebm.run.folder import check_run

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lebm.data.rows import Rows
    from lebm.estimators.latent_model import LatentModel


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
    numbers = (f"-{number}" if number > 1 else "" for number in itertools.count(1))
    candidates = (folder / f"{name}{number}{suffix}" for number in numbers)
    # A link that leads nowhere is taken too, since writing would follow it.
    return next(path for path in candidates if not os.path.lexists(path))


def load_model(chosen: argparse.Namespace) -> LatentModel:
    """The model of the run that was named, on the device that was asked for.

    The names of the run and the data are checked before torch is imported. What kind of weights it has is put
    into ``chosen.loaded_weights``, and its seed into ``chosen.seed`` if that is ``None``.
    """
    check_run(chosen.run)
    check_data(getattr(chosen, "data", None), run=chosen.run)
    import torch

    import lebm

    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device that torch can use")
    device = "cuda" if chosen.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = lebm.load(chosen.run, trust=chosen.trust, map_location=device, weights=chosen.weights)
    chosen.loaded_weights = model.loaded_weights
    if chosen.seed is None:
        chosen.seed = model.seed
    return model


def open_data(chosen: argparse.Namespace, model: LatentModel, limit: int | None) -> Rows:
    """The rows of the data to look at, in the form that the model takes."""
    from lebm.evaluation.reopen import reopen

    return reopen(chosen.run, chosen.data, model, trust=chosen.trust).rows(chosen.split, limit)


def write_shown(
    chosen: argparse.Namespace, name: str, x: Tensor, picture: Callable[[Tensor], np.ndarray]
) -> Path:
    """Write images as a PNG file, arranged by ``picture``, and other observations as a ``.npy`` file."""
    from lebm.plots.grids import write_png

    if is_image(x):
        return write_png(target_file(chosen, name, ".png"), picture(x))
    target = target_file(chosen, name, ".npy")
    if target.suffix != ".npy":
        raise UserError(f"--out {target}: observations of shape {tuple(x.shape[1:])} are written as .npy")
    write_npy(target, x)
    return target


def write_npy(target: Path, x: Tensor) -> None:
    """Write an array of NumPy."""
    import numpy

    with replaced(target) as unfinished, unfinished.open("wb") as file:
        numpy.save(file, x.numpy())


def is_image(x: Tensor) -> bool:
    """Whether observations ``(B, *event)`` are images with one or three channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def encode_noise(seed: int, index: Tensor | range) -> Any:
    """The noise of a test pass, so that scores agree with it where rows do."""
    from lebm.samplers.noise import Noise

    return Noise.samples(seed, "encode", index=index)


def chain_words(model: LatentModel, given: int | None, name: str) -> str:
    """Length of the chain ``prior``, ``posterior`` or ``image``, for a message; empty if there is none."""
    direct = model.chain_settings.get("direct_draws") if name == "prior" and given is None else None
    if direct is not None:
        return f"draws of the base, {direct['steps']} steps of independence Metropolis, "
    steps = given or model.chain_steps(name)
    return f"chain of {steps} steps, " if steps else ""


def report(what: str, target: Path, chosen: argparse.Namespace, chain: str) -> None:
    """Say what was written, where, and how it was made."""
    origin = f"{chain}seed {chosen.seed}, {chosen.loaded_weights} weights of {chosen.run}"
    tell(f"lebm: {what} in {target} ({origin})")


def say(sentences: Iterable[str], out: Path | None) -> None:
    """Print sentences, one a line, and write them to a file if one is named."""
    text = "".join(f"{sentence}\n" for sentence in sentences)
    print(printable(text), end="")
    if out is not None:
        write_text(out, text)
