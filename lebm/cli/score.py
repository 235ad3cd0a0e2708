"""``lebm score RUN --data DATA``: anomaly scores as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import (
    add_data,
    chain_words,
    count,
    encode_noise,
    load_model,
    open_data,
    report,
    run_parser,
    target_file,
)
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.config.run_data import Images, SentenceRows

__all__ = ["score"]


def score(argv: list[str]) -> int:
    """``lebm score RUN --data PATH_OR_HUB_NAME``"""
    parser = run_parser(
        "score", "Anomaly scores, -log p(x, z) at a posterior sample: high for what the model finds unlikely."
    )
    add_data(parser)
    parser.add_argument("--limit", type=count, help="score the first images only")
    chosen = parser.parse_args(argv)
    target = target_file(chosen, "scores", ".csv")
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {target}: scores are written as .csv or .parquet")
    model = load_model(chosen)
    import torch

    images = open_data(chosen, model, chosen.limit)
    steps = chosen.steps or model.evaluation_steps
    seed = model.seed if chosen.seed is None else chosen.seed
    scores = [
        model.anomaly_score(x.to(model.device), steps=steps, generator=encode_noise(seed, index))
        .double()
        .cpu()
        for index, x in images.batches(chosen.batch_size)
    ]
    values = torch.cat(scores)
    _write_scores(target, images, values)
    report(
        f"{len(values)} scores of {images.source}",
        target,
        chosen,
        seed,
        chain_words(model, steps, "posterior"),
    )
    broken = int((~torch.isfinite(values)).sum())
    if broken:
        print(f"lebm: {broken} of these scores are not finite")
    return 0


def _write_scores(target: Path, images: Images | SentenceRows, values: Tensor) -> None:
    import pyarrow
    from pyarrow import csv, parquet

    columns = {"index": images.numbers, "label": images.labels, "anomaly_score": values.tolist()}
    table = pyarrow.table(
        {name: pyarrow.array(column) for name, column in columns.items() if column is not None}
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".parquet":
        parquet.write_table(table, target)
    else:
        csv.write_csv(table, target)
