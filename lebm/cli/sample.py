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
        help="one grid (default for images), one array (default for vectors), or a folder of pictures",
    )
    parser.add_argument(
        "--decode",
        type=Path,
        metavar="OTHER",
        help="decode the samples, which are latents of the run OTHER, by its generator",
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
    parser.add_argument(
        "--class",
        dest="classes",
        metavar="CLASS",
        help="draw of these classes alone: 7, 5|8, ~3; lebm condition fits the classifier",
    )
    parser.add_argument(
        "--sharpness",
        type=float,
        default=2.0,
        metavar="W",
        help="with --class: the probability of the class counts to this power; 1 is the exact posterior, more"
        " leaves doubtful draws out (default %(default)g)",
    )
    parser.add_argument("--classifier", type=Path, help="with --class: the file of lebm condition --out")
    chosen = parser.parse_args(argv)
    if chosen.classes is not None and chosen.start == "pool":
        raise UserError("--class takes no --start pool: its draws begin at fresh chains")
    if not 0 < chosen.sharpness < math.inf:
        raise UserError(f"--sharpness {chosen.sharpness:g}: must be finite and above 0")
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
    x, note = _of_class(model, chosen, steps) if chosen.classes is not None else (None, "")
    draw: Callable[..., Tensor] = partial(model.sample, steps=steps)
    if chosen.start == "pool":
        if not isinstance(model, PriorModel):
            raise UserError(f"--start pool: a {type(model).__name__} draws its latents without a chain")
        draw = model.sample_from_pool
    if x is None:
        rows = range(chosen.n)
        drawn = [
            # One noise stream per sample: the first ten of 64 are the ten of -n 10, whatever the batches are.
            draw(len(batch), generator=Noise.samples(chosen.seed, "sample", index=batch)).cpu()
            for batch in (rows[start : start + chosen.batch_size] for start in rows[:: chosen.batch_size])
        ]
        x = torch.cat(drawn)
    if chosen.decode is not None:
        x = _decoded(x, chosen)
    if model.sentences is not None:
        say(model.sentences.spell(x), chosen.out)
        return 0
    if chosen.format is None and chosen.out is None and not is_image(x):
        form, target = "npy", target_file(chosen, "samples", ".npy")
    _write_samples(x, target, form)
    if broken := int((~x.isfinite()).flatten(1).any(dim=1).sum()):
        tell(f"lebm: {broken} of these samples are not finite")
    if chosen.start == "pool":
        chain = "from the pool of prior chains, "
    elif steps == 0:
        chain = "the generator's own, "
    else:
        chain = chain_words(model, steps, "image" if isinstance(model, Revises) else "prior")
    what = f"{chosen.n} samples" + (f" of class {chosen.classes}" if note else "")
    report(what, target, chosen, chain)
    if note:
        tell(note)
    return 0


def _of_class(model: LatentModel, chosen: argparse.Namespace, steps: int | None) -> tuple[Tensor, str]:
    """Draws of ``--class``, in memory of the host, and a line about them; they depend on their number."""
    import torch

    from lebm.cli.condition import class_condition
    from lebm.samplers.noise import Noise

    given, noise = class_condition(chosen, model), Noise([(chosen.seed, "sample", chosen.classes)])
    draws = model.sample_given(chosen.n, chosen.sharpness * given, steps=steps, generator=noise)
    parts = draws.z.split(chosen.batch_size)
    return torch.cat([model.observe(z, steps=steps, generator=noise).cpu() for z in parts]), (
        f"lebm: the classifier agrees with {int(draws.met.sum())} of {chosen.n}; acceptance"
        f" {draws.acceptance:.2f}, {draws.ess:.0f} effective draws of the prior, levels {draws.levels}"
    )


def _decoded(z: Tensor, chosen: argparse.Namespace) -> Tensor:
    """What the generator of another run makes of samples ``(n, d)``, its latents."""
    from lebm.plots import decoded

    other = load_model(argparse.Namespace(**{**vars(chosen), "run": chosen.decode}))
    if z.shape[1:] != (other.latent_dim,):
        raise UserError(
            f"--decode {chosen.decode}: takes latents of {other.latent_dim} numbers, and the samples of"
            f" {chosen.run} have the shape {tuple(z.shape[1:])}"
        )
    return decoded(other.decode, z.to(other.device), chosen.batch_size)


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
