"""``lebm reconstruct RUN``: data above, reconstructions below."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, load_model, open_data, report, say, write_shown
from lebm.cli.flags import add_data, count, run_parser
from lebm.errors import tell

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.data.rows import Rows
    from lebm.estimators.latent_model import LatentModel


def reconstruct(argv: list[str]) -> int:
    """``lebm reconstruct RUN``"""
    parser = run_parser(
        "reconstruct", "Encode images and decode them again: data above, reconstructions below."
    )
    add_data(parser)
    parser.add_argument(
        "-n",
        type=count,
        default=32,
        help="number of images or sentences (default 32): a seeded choice, spread over the classes of images",
    )
    chosen = parser.parse_args(argv)
    model = load_model(chosen)
    import torch

    from lebm.plots.grids import pair_grid

    rows = open_data(chosen, model, None).spread(chosen.n, chosen.seed)
    x, result = rows.all(), reconstructions(model, rows, chosen)
    if model.sentences is not None:
        pairs = zip(model.sentences.spell(x), model.sentences.spell(result), strict=True)
        say((f"data   {above}\nmodel  {below}" for above, below in pairs), chosen.out)
        return 0
    both = torch.cat([x, result])  # in an array the data come first
    target = write_shown(
        chosen, "reconstructions", both, lambda both: pair_grid(both[: len(x)], both[len(x) :])
    )
    error = (result - x).square().mean().item()
    chain = chain_words(model, chosen.steps or model.evaluation_steps, "posterior")
    report(f"{len(x)} reconstructions of {rows.source}", target, chosen, chain)
    unit = "a pixel, in the [-1, 1] range" if x.dim() == 4 else "a coordinate"
    tell(f"lebm: mean squared error {error:.5f} {unit}")
    return 0


def reconstructions(model: LatentModel, rows: Rows, chosen: argparse.Namespace) -> Tensor:
    """Observations that were encoded and decoded again, in memory of the host."""
    import torch

    steps = chosen.steps or model.evaluation_steps
    parts = []
    for index, x in rows.batches(chosen.batch_size):
        noise = encode_noise(chosen.seed, index)
        parts.append(model.reconstruct(x.to(model.device), steps=steps, generator=noise).cpu())
    return torch.cat(parts)
