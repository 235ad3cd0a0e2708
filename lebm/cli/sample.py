"""``lebm sample RUN``: draws from the model, as pictures, arrays or sentences."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, is_image, load_model, report, say, target_file, write_npy
from lebm.cli.flags import count, run_parser
from lebm.errors import UserError, tell

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.estimators.latent_model import LatentModel


def sample(argv: list[str]) -> int:
    """``lebm sample RUN -n 64``"""
    parser = run_parser(
        "sample", "Draw from the model: prior chain, then generator. Sentences are printed, one a line."
    )
    parser.add_argument("-n", type=count, default=64, help="number of samples (default 64)")
    parser.add_argument(
        "--format",
        choices=("png", "npy", "png-files"),
        help="one grid, one array in [-1, 1], or a folder of pictures",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("ebm", "generator"),
        default="ebm",
        help="with a chain on images: its end (ebm), or its start",
    )
    parser.add_argument(
        "--start",
        choices=("fresh", "pool"),
        default="fresh",
        help="where prior chains start: at the reference (fresh), or where training left its pool of chains",
    )
    chosen = parser.parse_args(argv)
    if chosen.start == "pool" and chosen.steps is not None:
        raise UserError("--start pool takes no --steps: each chain goes on for the kernel's own steps")
    form = chosen.format or ("npy" if (chosen.out or Path()).suffix == ".npy" else "png")
    target = target_file(chosen, "samples", {"png": ".png", "npy": ".npy", "png-files": ""}[form])
    model = load_model(chosen)
    import torch

    from lebm.estimators.latent_model import Revises
    from lebm.estimators.prior_model import PriorModel
    from lebm.samplers.noise import Noise

    steps = _sample_steps(model, chosen)
    draw: Callable[..., Tensor] = partial(model.sample, steps=steps)
    if chosen.start == "pool":
        if not isinstance(model, PriorModel):
            raise UserError(f"--start pool: a {type(model).__name__} draws its latents without a chain")
        draw = model.sample_from_pool
    rows = range(chosen.n)
    drawn = [
        # One noise stream per sample: the first ten of 64 are the ten of -n 10, whatever the batches are.
        draw(len(batch), generator=Noise.samples(chosen.seed, "sample", index=batch)).cpu()
        for batch in (rows[start : start + chosen.batch_size] for start in rows[:: chosen.batch_size])
    ]
    x = torch.cat(drawn)
    if model.sentences is not None:
        say(model.sentences.spell(x), chosen.out)
        return 0
    _write_samples(x, target, form)
    if broken := int((~x.isfinite()).flatten(1).any(dim=1).sum()):
        tell(f"lebm: {broken} of these samples are not finite")
    if chosen.start == "pool":
        chain = "from the pool of prior chains, "
    elif steps == 0:
        chain = "the generator's own, "
    else:
        chain = chain_words(model, steps, "image" if isinstance(model, Revises) else "prior")
    report(f"{chosen.n} samples", target, chosen, chain)
    return 0


def _sample_steps(model: LatentModel, chosen: argparse.Namespace) -> int | None:
    """Length of the chain that draws; none where the generator is asked alone."""
    if chosen.source == "ebm":
        return chosen.steps
    from lebm.estimators.latent_model import Revises

    if not isinstance(model, Revises):
        raise UserError(
            f"--from generator: a {type(model).__name__} has no chain on images that could be left out"
        )
    if chosen.steps is not None:
        raise UserError("--from generator takes no --steps: there is no chain")
    return 0


def _write_samples(x: Tensor, target: Path, form: str) -> None:
    from lebm.plots.grids import image_grid, write_png

    if form == "npy":
        write_npy(target, x)
        return
    if not is_image(x):
        raise UserError(f"samples of shape {tuple(x.shape[1:])} are not pictures; use --format npy")
    if form == "png":
        write_png(target, image_grid(x, max(8, math.isqrt(len(x)))))
        return
    for number, image in enumerate(x):
        levels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        write_png(target / f"{number:06d}.png", levels)
