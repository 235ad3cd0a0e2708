"""``lebm sample | reconstruct | score``: what a trained run can do, from its folder or checkpoint alone."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.cli.verb_data import Images, SentenceRows
    from lebm.estimators.base import LatentEstimator

__all__ = ["reconstruct", "sample", "score"]


def sample(argv: list[str]) -> int:
    """``lebm sample RUN -n 64``"""
    parser = _parser("sample", "Draw from the model: prior chain, then generator. Sentences are printed, one a line.")
    parser.add_argument("-n", type=_count, default=64, help="number of samples (default 64)")
    parser.add_argument("--format", choices=("png", "npy", "png-files"), help="one grid, one array in [-1, 1], or a folder of pictures")
    parser.add_argument(
        "--from", dest="source", choices=("ebm", "generator"), default="ebm", help="with a chain on images: its end (ebm), or its start"
    )
    chosen = parser.parse_args(argv)
    form = chosen.format or ("npy" if (chosen.out or Path()).suffix == ".npy" else "png")
    target = _target(chosen, "samples", {"png": ".png", "npy": ".npy", "png-files": ""}[form])
    model = _load(chosen)
    import torch

    from lebm.samplers.noise import Noise

    seed = model.seed if chosen.seed is None else chosen.seed
    steps = _sample_steps(model, chosen)
    drawn = [
        # a stream a sample: the first ten of 64 are the ten of -n 10, however they are cut into batches
        model.sample(stop - start, steps=steps, generator=Noise.samples(seed, "sample", index=range(start, stop))).cpu()
        for start, stop in _pieces(chosen.n, chosen.batch_size)
    ]
    if (sentences := _spelled(model, torch.cat(drawn))) is not None:
        _say(sentences, chosen.out)
        return 0
    _write_samples(torch.cat(drawn), target, form)
    name = "image_sampler" if hasattr(model, "image_sampler") else "prior_sampler"
    _report(f"{chosen.n} samples", target, chosen, seed, "the generator's own, " if steps == 0 else _chain(model, steps, name))
    return 0


def reconstruct(argv: list[str]) -> int:
    """``lebm reconstruct RUN``"""
    parser = _parser("reconstruct", "Encode images and decode them again: data above, reconstructions below.")
    _add_data(parser)
    parser.add_argument("-n", type=_count, default=32, help="number of images, the first of the split (default 32)")
    chosen = parser.parse_args(argv)
    target = _target(chosen, "reconstructions", ".png")
    model = _load(chosen)
    import torch

    from lebm.callbacks.images import pair_grid, write_png

    images = _images(chosen, model, chosen.n)
    steps = chosen.steps or model.evaluation_steps
    seed = model.seed if chosen.seed is None else chosen.seed
    decoded = [
        model.reconstruct(x.to(model.device), steps=steps, generator=_noise(seed, index)).cpu()
        for index, x in images.batches(chosen.batch_size)
    ]
    x, result = images.all(), torch.cat(decoded)
    if (sentences := _spelled(model, x)) is not None:
        pairs = zip(sentences, _spelled(model, result) or [], strict=True)
        _say((f"data   {above}\nmodel  {below}" for above, below in pairs), chosen.out)
        return 0
    write_png(target, pair_grid(x, result))
    error = (result - x).square().mean().item()
    _report(f"{len(x)} reconstructions of {images.source}", target, chosen, seed, _chain(model, steps, "posterior_sampler"))
    print(f"lebm: mean squared error {error:.5f} a pixel, in the [-1, 1] range")
    return 0


def score(argv: list[str]) -> int:
    """``lebm score RUN --data PATH_OR_HUB_NAME``"""
    parser = _parser("score", "Anomaly scores, -log p(x, z) at a posterior sample: high for what the model finds unlikely.")
    _add_data(parser)
    parser.add_argument("--limit", type=_count, help="score the first images only")
    chosen = parser.parse_args(argv)
    target = _target(chosen, "scores", ".csv")
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {target}: scores are written as .csv or .parquet")
    model = _load(chosen)
    import torch

    images = _images(chosen, model, chosen.limit)
    steps = chosen.steps or model.evaluation_steps
    seed = model.seed if chosen.seed is None else chosen.seed
    scores = [
        model.anomaly_score(x.to(model.device), steps=steps, generator=_noise(seed, index)).double().cpu()
        for index, x in images.batches(chosen.batch_size)
    ]
    values = torch.cat(scores)
    _write_scores(target, images, values)
    _report(f"{len(values)} scores of {images.source}", target, chosen, seed, _chain(model, steps, "posterior_sampler"))
    broken = int((~torch.isfinite(values)).sum())
    if broken:
        print(f"lebm: {broken} of these scores are not finite")
    return 0


def _parser(verb: str, description: str, several: bool = False, steps: int | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"lebm {verb}", description=description, allow_abbrev=False)
    if several:
        parser.add_argument("run", type=Path, nargs="+", help="run folders or .ckpt files")
    else:
        parser.add_argument("run", type=Path, help="a run folder or a .ckpt file")
    length = "that of training (sample) or evaluation if not given" if steps is None else f"{steps} if not given"
    parser.add_argument("--steps", type=_count, default=steps, help=f"length of the chain; {length}")
    parser.add_argument("--seed", type=int, help="of the chain's noise; the run's own if not given")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="averaged weights where the run kept them, or the plain ones"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--batch-size", type=_count, default=100, help="how many at once (default %(default)s); the result does not depend on it"
    )
    parser.add_argument("--out", type=Path, help="file to write; in the run folder if not given")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help="a package whose classes the checkpoint may name")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", help="Hub name, folder of parquet files or images, text file, or embedded:mnist; the run's own if not given"
    )
    parser.add_argument("--split", help="split of the data; its test split if not given")


def _sample_steps(model: LatentEstimator, chosen: argparse.Namespace) -> int | None:
    """Length of the chain that draws; none where the generator is asked alone."""
    if chosen.source == "ebm":
        return chosen.steps
    if not hasattr(model, "image_sampler"):
        raise UserError(f"--from generator: a {type(model).__name__} has no chain on images that could be left out")
    if chosen.steps is not None:
        raise UserError("--from generator takes no --steps: there is no chain")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _target(chosen: argparse.Namespace, name: str, suffix: str) -> Path:
    """Where to write: ``--out`` if it is free, else the next free name in the run folder or beside the checkpoint."""
    if chosen.out is not None:
        if chosen.out.exists() and not chosen.force:
            raise UserError(f"{chosen.out} exists; choose another --out or add --force")
        return chosen.out
    folder = chosen.run if chosen.run.is_dir() else chosen.run.parent
    if suffix != ".csv" and chosen.run.is_dir():
        folder = folder / "images"
        if not folder.resolve().is_relative_to(chosen.run.resolve()):
            raise UserError(f"{folder}: a link out of the run folder, which is not followed; choose a place with --out")
    candidates = (folder / f"{name}{'' if number == 1 else f'-{number}'}{suffix}" for number in range(1, 10**6))
    return next(path for path in candidates if not _taken(path) and not (suffix == ".csv" and _taken(path.with_suffix(".parquet"))))


def _taken(path: Path) -> bool:
    return os.path.lexists(path)  # also by a link that leads nowhere, since writing would follow it


def _load(chosen: argparse.Namespace) -> LatentEstimator:
    import torch

    from lebm import checkpoint

    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device that torch can use; lebm doctor says more")
    device = "cuda" if chosen.device != "cpu" and torch.cuda.is_available() else "cpu"
    return checkpoint.load(chosen.run, trust=chosen.trust, map_location=device, weights=chosen.weights)


def _images(chosen: argparse.Namespace, model: LatentEstimator, limit: int | None) -> Images | SentenceRows:
    from lebm.cli.verb_data import open_for

    return open_for(model, chosen.run, chosen.data, chosen.split, limit)


def _noise(seed: int, index: Tensor) -> Any:
    """The noise of a test pass, so that scores agree with it where rows do."""
    from lebm.samplers.noise import Noise

    return Noise.samples(seed, "encode", index=index)


def _pieces(n: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(n, start + size)) for start in range(0, n, size))


def _spelled(model: LatentEstimator, x: Tensor) -> list[str] | None:
    """Observations as sentences; ``None`` if the model is of something else."""
    from lebm.models.text_likelihood import sentence_likelihood

    likelihood = sentence_likelihood(model)
    return None if likelihood is None else likelihood.spell(x)


def _say(sentences: Iterable[str], out: Path | None) -> None:
    from lebm.cli.text_verbs import say

    say(sentences, out)


def _write_samples(x: Tensor, target: Path, form: str) -> None:
    import numpy

    from lebm.callbacks.images import image_grid, write_png

    if form == "npy":
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            numpy.save(file, x.numpy())
        return
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"samples of shape {tuple(x.shape[1:])} are no pictures; use --format npy")
    if form == "png":
        write_png(target, image_grid(x, max(8, math.isqrt(len(x)))))
        return
    for number, image in enumerate(x):
        levels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        write_png(target / f"{number:06d}.png", levels)


def _write_scores(target: Path, images: Images | SentenceRows, values: Tensor) -> None:
    import pyarrow
    from pyarrow import csv, parquet

    columns = {"index": images.numbers, "label": images.labels, "anomaly_score": values.tolist()}
    table = pyarrow.table({name: pyarrow.array(column) for name, column in columns.items() if column is not None})
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".parquet":
        parquet.write_table(table, target)
    else:
        csv.write_csv(table, target)


def _chain(model: LatentEstimator, given: int | None, name: str) -> str:
    steps = given or getattr(getattr(model, name, None), "steps", None)
    return f"chain of {steps} steps, " if steps else ""


def _report(what: str, target: Path, chosen: argparse.Namespace, seed: int, chain: str) -> None:
    print(f"lebm: {what} in {target} ({chain}seed {seed}, {chosen.weights} weights of {chosen.run})")
