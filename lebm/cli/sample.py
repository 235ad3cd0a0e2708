"""``lebm sample RUN``: draws from the model, as images, arrays or sentences."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import Opened, count, is_image, run_parser, say, target_file
from lebm.errors import UserError, tell

if TYPE_CHECKING:
    from torch import Tensor


def sample(argv: list[str]) -> None:
    """Run ``lebm sample RUN -n 64``."""
    purpose = "Draw from the model: a prior chain, then the generator. Sentences are printed, one per line."
    parser = run_parser("sample", purpose, steps="as in training", split="")
    kinds = "one picture, one array, or a folder of pictures (default: png for images, npy for vectors)"
    other = "run whose generator decodes the samples, which are its latents"
    start = "start of the prior chains: new draws of the reference, or the stored pool"
    classes = "condition on classes, such as 7, 5|8 or ~3; lebm condition fits the classifier (default: none)"
    power = "power of the class probability for --class; 1 is the exact posterior"
    parser.flag("-n", "number of samples", type=count, default=64)
    parser.flag("--format", kinds, choices=("png", "npy", "png-files"))
    parser.flag("--decode", other, type=Path, metavar="OTHER")
    parser.flag("--start", start, choices=("fresh", "pool"), default="fresh")
    parser.flag("--class", classes, dest="classes", metavar="CLASS")
    parser.flag("--sharpness", power, type=float, default=2, metavar="W")
    parser.flag("--classifier", "classifier of --class (default: beside the run)", type=Path)
    chosen = parser.parse_args(argv)
    if not 0 < chosen.sharpness < math.inf:
        raise UserError(f"--sharpness {chosen.sharpness:g}: must be finite and above 0")
    if chosen.start == "pool" and (chosen.classes, chosen.steps) != (None, None):
        raise UserError("--start pool runs no chain; leave out --class and --steps")
    run = Opened(chosen)
    from lebm.estimators.latent_model import Revises
    from lebm.plots import image_grid, write_png

    chain = "image" if isinstance(run.model, Revises) else "prior"
    if chosen.start == "pool":
        chain = "from the pool of prior chains"
    what, note = f"{chosen.n} samples", ""
    if chosen.classes is None:
        x = _drawn(run)
    else:
        x, note = _of_class(run)
        what += f" of class {chosen.classes}"
    if chosen.decode is not None:
        decoder = Opened(argparse.Namespace(**{**vars(chosen), "run": chosen.decode}))
        if x.shape[1:] != (decoder.model.latent_dim,):
            raise UserError(
                f"--decode {chosen.decode}: expected latents of {decoder.model.latent_dim} numbers, but the"
                f" samples of {chosen.run} have the shape {tuple(x.shape[1:])}"
            )
        x = decoder.decoded(x)
    if run.model.sentences is not None:
        say(run.model.sentences.spell(x), chosen.out)
        return
    if chosen.format == "png-files" and is_image(x):
        target = target_file(chosen, "samples", "")
        for number, image in enumerate(x):
            picture = image_grid(image[None])
            write_png(target / f"{number:06d}.png", picture[..., 0] if len(image) == 1 else picture)
    else:
        form = "png" if chosen.format == "png-files" else chosen.format
        target = run.write("samples", x, lambda x: image_grid(x, max(8, math.isqrt(len(x)))), form)
    if broken := int((~x.isfinite()).flatten(1).any(dim=1).sum()):
        tell(f"lebm: {broken} of these samples are not finite")
    run.report(what, target, chain)
    if note:
        tell(note)


def _drawn(run: Opened) -> Tensor:
    """Return draws of the model in CPU memory; each depends only on its number."""
    import torch

    from lebm.evaluation.chains import drawn
    from lebm.samplers.noise import Noise

    chosen, model, pool = run.chosen, run.model, run.chosen.start == "pool"
    parts = []
    for rows in torch.arange(chosen.n).split(chosen.batch_size):
        noise = Noise.samples(chosen.seed, "sample", index=rows)
        parts.append(drawn(model, len(rows), noise, chosen.steps, pool).cpu())
    return torch.cat(parts)


def _of_class(run: Opened) -> tuple[Tensor, str]:
    """Return draws of ``--class`` in CPU memory, and a line about them; they depend only on their number."""
    import torch

    from lebm.cli.conditions import class_condition
    from lebm.samplers.noise import Noise

    chosen, model = run.chosen, run.model
    given, noise = class_condition(run), Noise([(chosen.seed, "sample", chosen.classes)])
    draws = model.sample_given(chosen.n, chosen.sharpness * given, steps=chosen.steps, generator=noise)
    parts = draws.z.split(chosen.batch_size)
    return torch.cat([model.observe(z, steps=chosen.steps, generator=noise).cpu() for z in parts]), (
        f"lebm: the classifier agrees with {int(draws.met.sum())} of {chosen.n}; acceptance"
        f" {draws.acceptance:.2f}, {draws.ess:.0f} effective draws of the prior, levels {draws.levels}"
    )
