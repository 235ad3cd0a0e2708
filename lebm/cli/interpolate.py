"""``lebm interpolate RUN [A B]``: images, sentences or vectors on the way from one to another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, load_model, open_data, report, say, write_shown
from lebm.cli.flags import add_data, count, run_parser
from lebm.config.recipes import nearest
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.data.rows import Rows
    from lebm.estimators.latent_model import LatentModel


def interpolate(argv: list[str]) -> int:
    """``lebm interpolate RUN [A B]``"""
    parser = run_parser(
        "interpolate",
        "Interpolate between images or sentences: encode both, decode the latents between them.",
    )
    add_data(parser)
    parser.add_argument("first", nargs="?", help="first end: a sentence, or the row or the file of an image")
    parser.add_argument("last", nargs="?", help="second end")
    parser.add_argument(
        "-n", type=count, default=8, help="steps of an interpolation, both ends included (default 8)"
    )
    parser.add_argument(
        "--pairs",
        type=count,
        default=6,
        help="number of interpolations between a seeded choice of the data, spread over the classes, if no"
        " ends are named (default 6)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs=2,
        metavar="SEED",
        help="from one draw of the prior to another, by their seeds",
    )
    chosen = parser.parse_args(argv)
    if chosen.n < 2:
        raise UserError(f"-n {chosen.n}: an interpolation has two ends, so give at least 2")
    words = [word for word in (chosen.first, chosen.last) if word is not None]
    if len(words) == 1:
        raise UserError(f"an interpolation has two ends, and only one is named: {words[0]!r}")
    if words and chosen.seeds:
        raise UserError("--seeds names the two ends, so name no others")
    model = load_model(chosen)
    rows, kind = None, "posterior"
    if chosen.seeds:
        z, kind = drawn_latents(model, chosen.seeds, chosen.steps), "prior"
        source = f"the draws {chosen.seeds[0]} and {chosen.seeds[1]} of the prior"
    elif words and model.sentences is not None:
        x = model.sentences.read(words).to(model.device)
        z, source = model.encode(x, steps=chosen.steps, generator=encode_noise(chosen.seed, range(2))), ""
    else:
        rows = named_rows(chosen, model, words, 2 * chosen.pairs)
        z, source = encoded(chosen, model, rows), rows.source
    return _write(chosen, model, z[: len(z) // 2 * 2], source, kind, rows)


def _write(
    chosen: argparse.Namespace, model: LatentModel, z: Tensor, source: str, kind: str, rows: Rows | None
) -> int:
    """Decode the latents between each pair of ``z`` and write them."""
    import torch

    from lebm.plots import between, decoded, image_grid

    if not len(z):
        raise UserError(f"{source} has only one row, and an interpolation has two ends")
    pairs = zip(z[0::2], z[1::2], strict=True)
    x = decoded(model.decode, torch.cat([between(a, b, chosen.n) for a, b in pairs]), chosen.batch_size)
    if model.sentences is not None:
        say(model.sentences.spell(x), chosen.out)
        return 0
    target = write_shown(chosen, "interpolation", x, lambda x: image_grid(x, chosen.n))
    report(
        f"{len(z) // 2} interpolation(s) between {source}",
        target,
        chosen,
        chain_words(model, chosen.steps, kind),
    )
    if rows is not None:
        numbers = rows.columns["index"]
        named = ", ".join(f"{a} to {b}" for a, b in zip(numbers[0::2], numbers[1::2], strict=False))
        print(f"lebm: rows of the data: {named}")
    return 0


def drawn_latents(model: LatentModel, seeds: Sequence[int], steps: int | None) -> Tensor:
    """A draw of the prior per seed, ``(n, d)``: the latent of the first sample of ``lebm sample``."""
    import torch

    from lebm.samplers.noise import Noise

    noises = [Noise.samples(seed, "sample", index=range(1)) for seed in seeds]
    return torch.cat([model.sample_latent(1, steps=steps, generator=noise) for noise in noises])


def encoded(chosen: argparse.Namespace, model: LatentModel, rows: Rows) -> Tensor:
    """The latents of some rows, ``(n, d)``."""
    import torch

    steps = chosen.steps or model.evaluation_steps
    return torch.cat(
        [
            model.encode(x.to(model.device), steps=steps, generator=encode_noise(chosen.seed, index))
            for index, x in rows.batches(chosen.batch_size)
        ]
    )


def named_rows(chosen: argparse.Namespace, model: LatentModel, words: Sequence[str], n: int) -> Rows:
    """The named rows of the data, from 0 or by their files, or a seeded choice of ``n`` over the classes."""
    import numpy as np

    rows = open_data(chosen, model, None)
    if not words:
        return rows.spread(n, chosen.seed)
    return rows.chosen(np.array([_row(word, rows) for word in words]))


def _row(word: str, rows: Rows) -> int:
    """The row of an image, from its number or the name of its file; the end of the path is enough."""
    if word.isdecimal():
        if int(word) < len(rows):
            return int(word)
        raise UserError(f"row {word}: {rows.source} has the rows 0 to {len(rows) - 1}")
    if rows.paths is None:
        raise UserError(f"{word!r}: the rows of {rows.source} have no file names; give row numbers, from 0")
    name = f"/{PurePath(word).as_posix()}"
    paths = [f"/{path}" for path in rows.paths]
    found = [row for row, path in enumerate(paths) if path.endswith(name) or name.endswith(path)]
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(rows.paths[row] for row in found[:2])
        raise UserError(f"{word!r}: {len(found)} images of {rows.source} have this name, such as {both}")
    raise UserError(f"{word!r}: {rows.source} has no image of this name{nearest(word, rows.paths)}")
