"""``lebm traverse RUN [ROW]``: one coordinate of the latent varied per row of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, load_model, report, target_file
from lebm.cli.flags import add_data, count, run_parser
from lebm.cli.interpolate import decoded, drawn_latent, images_of
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.estimators.latent_model import LatentModel

__all__ = ["most_visible", "swept", "traverse"]


def traverse(argv: list[str]) -> int:
    """``lebm traverse RUN [ROW]``"""
    parser = run_parser(
        "traverse",
        "Vary one coordinate of an image's latent per row; the others stay. The middle is the image itself.",
    )
    add_data(parser)
    parser.add_argument(
        "row",
        nargs="?",
        help="the image: its row in the data, from 0, or its file name; a seeded choice if not given",
    )
    parser.add_argument(
        "--from-seed",
        type=int,
        metavar="SEED",
        help="a draw of the prior with this seed, and no image of the data",
    )
    parser.add_argument(
        "--coordinates",
        type=int,
        nargs="+",
        metavar="K",
        help="the coordinates, from 0; if not given, the ten that change the image most",
    )
    parser.add_argument(
        "--range",
        type=float,
        default=3.0,
        help="added at the right end and subtracted at the left (default %(default)s)",
    )
    parser.add_argument("-n", type=count, default=9, help="images per row (default %(default)s)")
    chosen = parser.parse_args(argv)
    if chosen.n < 2:
        raise UserError(f"-n {chosen.n}: a row has two ends, so give at least 2")
    if not 0 < chosen.range < float("inf"):
        raise UserError(f"--range {chosen.range:g}: must be finite and above 0")
    if chosen.row is not None and chosen.from_seed is not None:
        raise UserError("--from-seed draws a latent, so name no row")
    model = load_model(chosen)
    if model.sentences is not None:
        raise UserError(f"{chosen.run}: traverse is for models of images; lebm interpolate takes sentences")
    target = target_file(chosen, "traversal", ".png")

    from lebm.plots.grids import image_grid, write_png

    if chosen.from_seed is not None:
        z = drawn_latent(model, chosen.from_seed, chosen.steps)
        source = f"draw {chosen.from_seed} of the prior"
        chain = chain_words(model, chosen.steps, "prior")
    else:
        images = images_of(chosen, model, [] if chosen.row is None else [chosen.row], 1)
        steps = chosen.steps or model.evaluation_steps
        index, x = next(images.batches(1))
        z = model.encode(x.to(model.device), steps=steps, generator=encode_noise(chosen.seed, index))
        source, chain = f"row {images.numbers[0]} of {images.source}", chain_words(model, steps, "posterior")
    size = z.shape[1]
    wrong = [k for k in chosen.coordinates or [] if not 0 <= k < size]
    if wrong:
        raise UserError(f"--coordinates {wrong[0]}: the latent has the coordinates 0 to {size - 1}")
    coordinates = chosen.coordinates or most_visible(model, z[0], chosen.range, 10, chosen.batch_size)
    ways = swept(z[0], coordinates, chosen.range, chosen.n)
    write_png(target, image_grid(decoded(model, ways.flatten(0, 1), chosen.batch_size), chosen.n))
    report(f"{len(coordinates)} coordinates of {source}", target, chosen, chain)
    print(f"lebm: coordinates from above: {', '.join(map(str, coordinates))}")
    return 0


def swept(z: Tensor, coordinates: list[int], width: float, n: int) -> Tensor:
    """``z: (d,)`` with one coordinate at a time moved by ``-width`` to ``width``, ``(coordinates, n, d)``."""
    import torch

    shifts = torch.linspace(-width, width, n, dtype=z.dtype, device=z.device)
    ways = z.repeat(len(coordinates), n, 1)
    for place, coordinate in enumerate(coordinates):
        ways[place, :, coordinate] += shifts
    return ways


def most_visible(model: LatentModel, z: Tensor, width: float, n: int, size: int) -> list[int]:
    """The ``n`` coordinates whose two ends differ most as images, in the mean square, largest first."""
    ends = swept(z, list(range(len(z))), width, 2)
    x = decoded(model, ends.flatten(0, 1), size)
    change = (x[1::2] - x[0::2]).flatten(1).square().mean(1)
    return change.argsort(descending=True, stable=True)[:n].tolist()
