"""``lebm score RUN --data DATA``: anomaly scores as a table, a threshold, and a picture of the highest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.common import Opened, count, free, is_image, run_parser, target_file
from lebm.errors import UserError, tell
from lebm.files import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.data.rows import Rows


def score(argv: list[str]) -> None:
    """Run ``lebm score RUN --data DATA``."""
    what = "Write the anomaly score of the model, such as -log p(x, z) at a posterior sample, for every row;"
    parser = run_parser("score", f"{what} unlikely data have high scores.")
    kind = "score of the method, or ranks of reconstruction and prior combined"
    top = "number of most anomalous images to draw, with scores and reconstruction errors (default: none)"
    share = "share of validation rows above the threshold for flags, such as 0.05 (default: no flags)"
    parser.flag("--score", kind, choices=("anomaly_score", "combined"), default="anomaly_score")
    parser.flag("--limit", "number of rows to score, from the first (default: all)", type=count)
    parser.flag("--top", top, type=count, metavar="N")
    parser.flag("--false_positive_rate", share, type=float, metavar="RATE")
    chosen = parser.parse_args(argv)
    target = target_file(chosen, "scores", ".csv")
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {target}: scores are written as .csv or .parquet")
    rate = chosen.false_positive_rate
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"--false_positive_rate {rate:g}: expected a share above 0 and below 1")
    picture = target.with_name(f"{target.stem}-most.png")
    if chosen.top:
        free(picture, chosen.force)
    run = Opened(chosen)
    import pyarrow
    from pyarrow import csv, parquet

    rows = run.rows(chosen.limit)
    if run.model.sentences is not None and (chosen.top or chosen.score == "combined"):
        raise UserError(f"{chosen.run}: --top and --score combined need images, not sentences")
    scorer = run.model.anomaly_score if chosen.score == "anomaly_score" else _combined(run)
    values = run.each(scorer, rows).double()
    threshold = None if rate is None else _threshold(run, scorer, rate)
    columns: dict[str, Any] = {**rows.columns, chosen.score: values.tolist()}
    if threshold is not None:
        columns["flagged"] = (~(values <= threshold)).tolist()
    write = parquet.write_table if target.suffix == ".parquet" else csv.write_csv
    with replaced(target) as unfinished:
        write(pyarrow.table(columns), unfinished)
    run.report(f"{len(values)} scores of {rows.source}", target)
    if threshold is not None:
        flagged = sum(columns["flagged"])
        tell(f"lebm: {flagged} of {len(values)} rows score above it and are marked in the column 'flagged'")
    if broken := int((~values.isfinite()).sum()):
        tell(f"lebm: {broken} of these scores are not finite")
    if chosen.top:
        _write_picture(picture, run, rows, values)


def _combined(run: Opened) -> Callable[..., Tensor]:
    """Return the score ``combined``, by the ranks of its two parts among training rows."""
    from lebm.evaluation.data import training_rows
    from lebm.evaluation.scores import combined, combined_parts, gathered

    model = run.model
    if model.latent_prior is None:
        raise UserError(f"--score combined: a {type(model).__name__} has no prior on latents")
    training = training_rows(run.data(None), run.chosen.seed)
    normal = gathered(run.parts(partial(combined_parts, model), training), training.source)
    tell(f"lebm: each score is compared with {len(training)} images of {training.source}")
    return lambda x, **chain: combined(combined_parts(model, x, **chain), normal)


def _threshold(run: Opened, scorer: Callable[..., Tensor], rate: float) -> float:
    """Return the score threshold for a false-positive rate, from the validation rows of the run."""
    from lebm.evaluation.scores import threshold_at

    normal = run.data(None).rows_of("validation")
    values = run.each(scorer, normal).double()
    threshold = threshold_at(values, rate)
    above = int((values > threshold).sum())
    tell(
        f"lebm: threshold {threshold:.6g}: {above} of {len(values)} rows of {normal.source} score above it"
        f" ({above / len(values):.3g}, requested {rate:g})"
    )
    return threshold


def _write_picture(target: Path, run: Opened, rows: Rows, values: Tensor) -> None:
    """Write the images with the highest scores, with captions and squared errors per pixel."""
    import torch

    from lebm.plots import captioned_grid, heat, write_png

    highest = values.nan_to_num(nan=torch.inf).argsort(stable=True).flip(0)[: run.chosen.top]
    shown = rows.chosen(highest.numpy())
    x, columns = shown.all(), shown.columns
    if not is_image(x):
        raise UserError(f"{run.chosen.run}: --top needs images")
    error = (run.each(run.model.reconstruct, shown) - x).square().mean(dim=1)
    largest = max(1e-12, float(error.max()))
    captions = [f"{value:.5g}" for value in values[highest].tolist()]
    if names := columns.get("class_name") or columns.get("label"):
        captions = [f"{score} ({name})" for score, name in zip(captions, names, strict=True)]
    write_png(target, captioned_grid([x, heat(error, largest)], captions))
    tell(f"lebm: {len(x)} images, the most anomalous first, in {target}")
    tell(f"lebm: right of each image: squared error per pixel, from 0 (black) to {largest:.3g} (white)")
