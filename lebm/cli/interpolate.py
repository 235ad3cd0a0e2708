"""``lebm interpolate RUN [A B]``: images or sentences on the way from one to another."""

from __future__ import annotations

import argparse
from pathlib import PurePath
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, load_model, open_data, report, say, target_file
from lebm.cli.flags import add_data, count, run_parser
from lebm.config.recipes import nearest
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.config.run_data import Images
    from lebm.estimators.latent_model import LatentModel

__all__ = ["between", "decoded", "drawn_latent", "images_of", "interpolate"]

_TAKES = "a model of images takes row numbers of the data, from 0, or names of image files"


def interpolate(argv: list[str]) -> int:
    """``lebm interpolate RUN [A B]``"""
    parser = run_parser(
        "interpolate",
        "The way from one image or sentence to another: both encoded, the latents between them decoded.",
    )
    add_data(parser)
    parser.add_argument(
        "first", nargs="?", help="where the way begins: a sentence, or the row or the file name of an image"
    )
    parser.add_argument("last", nargs="?", help="where it ends")
    parser.add_argument(
        "-n",
        type=count,
        default=8,
        help="number of images or sentences per way, both ends included (default 8)",
    )
    parser.add_argument(
        "--pairs",
        type=count,
        default=6,
        help="number of ways if no rows are named (default 6); a seeded choice of images is spread over the"
        " classes",
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
        raise UserError(f"-n {chosen.n}: a way has two ends, so give at least 2")
    words = [word for word in (chosen.first, chosen.last) if word is not None]
    if len(words) == 1:
        raise UserError(f"a way has two ends, and only one is named: {words[0]!r}")
    if words and chosen.seeds:
        raise UserError("--seeds names the two ends, so name no others")
    if not all(map(str.strip, words)):
        raise UserError("an empty sentence cannot be encoded")
    model = load_model(chosen)
    if model.sentences is None:
        return _of_images(chosen, model, words)
    if not words and not chosen.seeds:
        raise UserError("name two sentences, or two seeds with --seeds")
    first, last = _drawn_ends(chosen, model) if chosen.seeds else _sentence_ends(chosen, model, words)
    say(model.sentences.spell(model.decode(between(first[0], last[0], chosen.n))), chosen.out)
    return 0


def _sentence_ends(chosen: argparse.Namespace, model: LatentModel, words: list[str]) -> tuple[Tensor, Tensor]:
    assert model.sentences is not None
    x = model.sentences.read(words).to(model.device)
    z = model.encode(x, steps=chosen.steps, generator=encode_noise(chosen.seed, range(2)))
    return z[:1], z[1:]


def _of_images(chosen: argparse.Namespace, model: LatentModel, words: list[str]) -> int:
    import torch

    from lebm.plots.grids import image_grid, write_png

    target = target_file(chosen, "interpolation", ".png")
    if chosen.seeds:
        first, last = _drawn_ends(chosen, model)
        source = f"the draws {chosen.seeds[0]} and {chosen.seeds[1]} of the prior"
    else:
        images = images_of(chosen, model, words, 2 * chosen.pairs)
        steps = chosen.steps or model.evaluation_steps
        z = torch.cat(
            [
                model.encode(x.to(model.device), steps=steps, generator=encode_noise(chosen.seed, index))
                for index, x in images.batches(chosen.batch_size)
            ]
        )
        z = z[: len(z) // 2 * 2]
        if not len(z):
            raise UserError(f"{images.source} has only one image, and a way has two ends")
        first, last, source = z[0::2], z[1::2], images.source
    ways = torch.cat([between(a, b, chosen.n) for a, b in zip(first, last, strict=True)])
    write_png(target, image_grid(decoded(model, ways, chosen.batch_size), chosen.n))
    chain = chain_words(model, chosen.steps, "prior" if chosen.seeds else "posterior")
    report(f"{len(first)} way(s) between {source}", target, chosen, chain)
    if not chosen.seeds:
        pairs = zip(images.numbers[0::2], images.numbers[1::2], strict=False)
        print(f"lebm: rows of the data: {', '.join(f'{a} to {b}' for a, b in pairs)}")
    return 0


def _drawn_ends(chosen: argparse.Namespace, model: LatentModel) -> tuple[Tensor, Tensor]:
    first, last = (drawn_latent(model, seed, chosen.steps) for seed in chosen.seeds)
    return first, last


def drawn_latent(model: LatentModel, seed: int, steps: int | None) -> Tensor:
    """A draw of the prior, ``(1, d)``: the latent of the first sample that ``lebm sample`` draws."""
    from lebm.samplers.noise import Noise

    return model.sample_latent(1, steps=steps, generator=Noise.samples(seed, "sample", index=range(1)))


def images_of(chosen: argparse.Namespace, model: LatentModel, words: list[str], n: int) -> Images:
    """The named images of the data, or a seeded choice of ``n`` that is spread over the classes.

    Args:
        chosen: the flags of the verb.
        model: a model of images.
        words: rows of the data, from 0, or names of files; empty for the choice.
        n: number of images of the choice.

    Raises:
        UserError: if an image is not in the data, or the model is not one of images.
    """
    import numpy as np

    from lebm.config.run_data import Images
    from lebm.data.sources import IMAGE_SUFFIXES

    for word in words:
        if not (_is_number(word) or word.lower().endswith(IMAGE_SUFFIXES)):
            raise UserError(f"{word!r}: {_TAKES}; sentences are for models of sentences")
    images = open_data(chosen, model, None)
    assert isinstance(images, Images)  # the model is not one of sentences
    if not words:
        return images.spread(n, chosen.seed)
    return images.chosen(np.array([_row(word, images) for word in words]))


def _row(word: str, images: Images) -> int:
    """The row of an image, from its number or the name of its file; the end of the path is enough."""
    if _is_number(word):
        if int(word) < len(images.pixels):
            return int(word)
        raise UserError(f"row {word}: {images.source} has the rows 0 to {len(images.pixels) - 1}")
    if images.paths is None:
        raise UserError(
            f"{word!r}: the images of {images.source} have no file names; give row numbers, from 0"
        )
    wanted, paths = PurePath(word).parts, [PurePath(path).parts for path in images.paths]
    found = [row for row, path in enumerate(paths) if path[-len(wanted) :] == wanted] or [
        row for row, path in enumerate(paths) if wanted[-len(path) :] == path
    ]
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(images.paths[row] for row in found[:2])
        raise UserError(f"{word!r}: {len(found)} images of {images.source} have this name, such as {both}")
    hint = nearest(word, images.paths)
    raise UserError(f"{word!r}: {images.source} has no image of this name{hint}")


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def decoded(model: LatentModel, z: Tensor, size: int) -> Tensor:
    """Images of latents ``(N, d)``, in memory of the host, ``size`` at a time."""
    import torch

    with torch.no_grad():
        return torch.cat([model.decode(part).cpu() for part in z.split(size)])


def between(first: Tensor, last: Tensor, n: int) -> Tensor:
    r"""``n`` latents on the great circle from one to the other, ``(n, d)``; both ``(d,)``, n at least 2.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)\, a + \sin(t \theta)\, b}{\sin\theta}

    with the angle :math:`\theta` between them. Unlike those on a straight line they keep about the length
    that draws of a prior near N(0, I) have."""
    import torch

    share = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device).unsqueeze(1)
    cosine = (first @ last / (first.norm() * last.norm())).clamp(-1, 1)
    angle = cosine.arccos()
    if angle.sin() < 1e-4:  # the same or opposite directions, between which there is no one circle
        return (1 - share) * first + share * last
    return (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
