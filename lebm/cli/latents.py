"""Latents of data: ``lebm reconstruct``, ``interpolate``, ``traverse`` and ``encode``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lebm.cli.common import Opened, count, encode_noise, run_parser, say, target_file
from lebm.errors import UserError, tell
from lebm.files import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.data.rows import Rows


def reconstruct(argv: list[str]) -> None:
    """Run ``lebm reconstruct RUN``."""
    what = "Encode and decode data. The data are above, the reconstructions below."
    number = "number of rows, chosen by the seed and spread over the classes"
    parser = run_parser("reconstruct", what)
    parser.flag("-n", number, type=count, default=32)
    run = Opened(parser.parse_args(argv))
    import torch

    from lebm.plots import pair_grid

    rows = run.rows().spread(run.chosen.n, run.chosen.seed)
    x, result = rows.all(), run.each(run.model.reconstruct, rows)
    if (sentences := run.model.sentences) is not None:
        pairs = zip(sentences.spell(x), sentences.spell(result), strict=True)
        say((f"data   {above}\nmodel  {below}" for above, below in pairs), run.chosen.out)
        return
    both = torch.cat([x, result])  # an array holds the data first
    target = run.write("reconstructions", both, lambda both: pair_grid(both[: len(x)], both[len(x) :]))
    run.report(f"{len(x)} reconstructions of {rows.source}", target)
    unit = "per pixel, in the [-1, 1] range" if x.dim() == 4 else "per coordinate"
    tell(f"lebm: mean squared error {(result - x).square().mean().item():.5f} {unit}")


def interpolate(argv: list[str]) -> None:
    """Run ``lebm interpolate RUN [A B]``."""
    parser = run_parser("interpolate", "Encode images or sentences, and decode the latents between them.")
    pairs = "number of interpolations between rows chosen by the seed, if no ends are named"
    seeds = "two draws of the prior as the ends, by their seeds"
    parser.add_argument("ends", nargs="*", help="two ends: sentences, or rows of images")
    parser.flag("-n", "number of points, ends included", type=partial(count, least=2), default=8)
    parser.flag("--pairs", pairs, type=count, default=6)
    parser.flag("--seeds", seeds, type=int, nargs=2, metavar="SEED")
    chosen = parser.parse_args(argv)
    words = chosen.ends
    if len(words) not in ((0,) if chosen.seeds else (0, 2)):
        raise UserError(f"{' '.join(words)}: an interpolation has two ends; name two, none, or --seeds")
    run = Opened(chosen)
    import torch

    from lebm.plots import between, image_grid

    rows, sentences = None, run.model.sentences
    if words and sentences is not None:
        x, noise = sentences.read(words).to(run.model.device), encode_noise(chosen.seed, range(2))
        z, source = run.model.encode(x, steps=chosen.steps, generator=noise), ""
    else:
        z, source, rows = _starts(run, words, chosen.seeds or (), 2 * chosen.pairs)
    ends = list(zip(z[0::2], z[1::2], strict=False))
    if not ends:
        raise UserError(f"{source} has only one row; an interpolation needs two")
    x = run.decoded(torch.cat([between(first, last, chosen.n) for first, last in ends]))
    if sentences is not None:
        say(sentences.spell(x), chosen.out)
        return
    target = run.write("interpolation", x, lambda x: image_grid(x, chosen.n))
    what = f"{len(ends)} interpolation(s) between {source}"
    run.report(what, target, "posterior" if rows else "prior")
    if rows is not None:
        numbers = rows.columns["index"]
        named = ", ".join(f"{a} to {b}" for a, b in zip(numbers[0::2], numbers[1::2], strict=False))
        tell(f"lebm: rows of the data: {named}")


def traverse(argv: list[str]) -> None:
    """Run ``lebm traverse RUN [ROW]``."""
    what = "Vary one latent coordinate of an image per row of a picture. The image itself is in the middle."
    parser = run_parser("traverse", what)
    image = "row of the image in the data, from 0 (default: chosen by the seed)"
    which = "latent coordinates, from 0 (default: the ten that change the image most)"
    parser.add_argument("row", nargs="?", help=image)
    parser.flag("--from-seed", "seed of a prior draw as the image", type=int, metavar="SEED")
    parser.flag("--coordinates", which, type=int, nargs="+", metavar="K")
    parser.flag("--range", "largest change of a coordinate, in both directions", type=float, default=3.0)
    parser.flag("-n", "number of images per row", type=partial(count, least=2), default=9)
    chosen = parser.parse_args(argv)
    if chosen.row is not None and chosen.from_seed is not None:
        raise UserError("--from-seed draws a latent from the prior; leave out the row")
    run = Opened(chosen)
    if run.model.sentences is not None:
        raise UserError(f"{chosen.run}: traverse takes models of images; lebm interpolate takes sentences")
    from lebm.plots import image_grid, most_visible, swept

    words, seeds = ([] if value is None else [value] for value in (chosen.row, chosen.from_seed))
    (z, *_), source, rows = _starts(run, words, seeds, 1)
    source = source if rows is None else f"row {rows.columns['index'][0]} of {source}"
    wrong = [k for k in chosen.coordinates or [] if not 0 <= k < len(z)]
    if wrong:
        raise UserError(f"--coordinates {wrong[0]}: the latent has the coordinates 0 to {len(z) - 1}")
    coordinates = chosen.coordinates or most_visible(run.decoded, z, chosen.range, 10)
    x = run.decoded(swept(z, coordinates, chosen.range, chosen.n).flatten(0, 1))
    target = run.write("traversal", x, lambda x: image_grid(x, chosen.n))
    run.report(f"{len(coordinates)} coordinates of {source}", target, "posterior" if rows else "prior")
    tell(f"lebm: coordinates from above: {', '.join(map(str, coordinates))}")


def encode(argv: list[str]) -> None:
    """Run ``lebm encode RUN``."""
    parser = run_parser(
        "encode",
        "Encode data, and write the latents to a .npz file with the arrays train, validation and test, and"
        " with labels and file names if the data have them. lebm cp latent_mle/vectors prior.yaml --for FILE"
        " writes a recipe for them.",
        split="all splits of the run, or the test split of --data",
    )
    chosen = parser.parse_args(argv)
    target = target_file(chosen, "latents", ".npz")
    if target.suffix != ".npz":
        raise UserError(f"--out {target}: latents are written as .npz")
    run = Opened(chosen)
    import numpy as np

    data = run.data(chosen.data)
    if chosen.split is not None or data.foreign:
        parts = {"train": data.rows(chosen.split)}
    else:
        data.setup()  # type: ignore[call-arg]
        names = ("train", "validation", "test")
        parts = {name: data.rows_of(name) for name in names if getattr(data, name) is not None}
    arrays: dict[str, Any] = {}
    for name, rows in parts.items():
        arrays[name] = run.each(run.model.encode, rows).numpy()
        labels = rows.columns.get("label", getattr(rows.split, "labels", None))
        if labels is not None:
            arrays[f"{name}_label"] = np.asarray(labels)
        if "path" in rows.known:
            arrays[f"{name}_name"] = np.asarray(rows.columns["path"])
    with replaced(target) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)
    counts = " and ".join(f"{len(arrays[name])} ({name})" for name in parts)
    run.report(f"latents of {data.path}, {counts},", target)


def _starts(
    run: Opened, words: Sequence[str], seeds: Sequence[int], n: int
) -> tuple[Tensor, str, Rows | None]:
    """Return latents ``(n, d)``, their source in words, and the rows that they encode.

    The rows are given by ``words``, numbers from 0, or chosen by the seed over the classes. With seeds, each
    latent is the latent of the first sample of ``lebm sample`` with that seed.
    """
    import numpy as np
    import torch

    from lebm.samplers.noise import Noise

    if seeds:
        noises = [Noise.samples(seed, "sample", index=range(1)) for seed in seeds]
        drawn = [run.model.sample_latent(1, steps=run.chosen.steps, generator=noise) for noise in noises]
        return torch.cat(drawn), f"draw {' and draw '.join(map(str, seeds))} of the prior", None
    rows = run.rows()
    if words:
        if wrong := [word for word in words if not word.isdecimal() or int(word) >= len(rows)]:
            raise UserError(f"row {wrong[0]}: {rows.source} has the rows 0 to {len(rows) - 1}")
        rows = rows.chosen(np.array([int(word) for word in words]))
    else:
        rows = rows.spread(n, run.chosen.seed)
    return run.each(run.model.encode, rows), rows.source, rows
