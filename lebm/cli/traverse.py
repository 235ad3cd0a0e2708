"""``lebm traverse RUN [ROW]``: one coordinate of the latent varied per row of a picture."""

from __future__ import annotations

from lebm.cli.common import chain_words, load_model, report, write_shown
from lebm.cli.flags import add_data, count, run_parser
from lebm.cli.interpolate import drawn_latents, encoded, named_rows
from lebm.errors import UserError


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
    if chosen.row is not None and chosen.from_seed is not None:
        raise UserError("--from-seed draws a latent, so name no row")
    model = load_model(chosen)
    if model.sentences is not None:
        raise UserError(f"{chosen.run}: traverse is for models of images; lebm interpolate takes sentences")
    from lebm.plots import decoded, image_grid, most_visible, swept

    if chosen.from_seed is not None:
        z, source = (
            drawn_latents(model, [chosen.from_seed], chosen.steps)[0],
            f"draw {chosen.from_seed} of the prior",
        )
        chain = chain_words(model, chosen.steps, "prior")
    else:
        rows = named_rows(chosen, model, [] if chosen.row is None else [chosen.row], 1)
        z, source = encoded(chosen, model, rows)[0], f"row {rows.columns['index'][0]} of {rows.source}"
        chain = chain_words(model, chosen.steps or model.evaluation_steps, "posterior")
    wrong = [k for k in chosen.coordinates or [] if not 0 <= k < len(z)]
    if wrong:
        raise UserError(f"--coordinates {wrong[0]}: the latent has the coordinates 0 to {len(z) - 1}")
    size = chosen.batch_size
    coordinates = chosen.coordinates or most_visible(model.decode, z, chosen.range, 10, size=size)
    x = decoded(model.decode, swept(z, coordinates, chosen.range, chosen.n).flatten(0, 1), size)
    target = write_shown(chosen, "traversal", x, lambda x: image_grid(x, chosen.n))
    report(f"{len(coordinates)} coordinates of {source}", target, chosen, chain)
    print(f"lebm: coordinates from above: {', '.join(map(str, coordinates))}")
    return 0
