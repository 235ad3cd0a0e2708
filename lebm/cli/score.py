"""``lebm score RUN --data DATA``: anomaly scores as a table, a threshold, and pictures of the extremes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, is_image, load_model, open_data, report, target_file
from lebm.cli.flags import add_data, count, run_parser
from lebm.cli.reconstruct import reconstructions
from lebm.errors import UserError, tell
from lebm.files import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.data.rows import Rows
    from lebm.estimators.latent_model import LatentModel

    Scorer = Callable[[Tensor, Tensor], Tensor]

ENDS = {"most": "the most anomalous", "least": "the least anomalous"}


def score(argv: list[str]) -> int:
    """``lebm score RUN --data PATH_OR_HUB_NAME``"""
    chosen = _parser().parse_args(argv)
    target = target_file(chosen, "scores", ".csv")
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {target}: scores are written as .csv or .parquet")
    rate = chosen.false_positive_rate
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"--false_positive_rate {rate:g}: expected a share above 0 and below 1")
    if chosen.heatmap and chosen.top is None:
        chosen.top = 25
    pictures = {end: target.with_name(f"{target.stem}-{end}.png") for end in ENDS if chosen.top}
    for picture in pictures.values():
        if picture.exists() and not chosen.force:
            raise UserError(f"{picture} exists; choose another --out or add --force")
    model = load_model(chosen)
    rows = open_data(chosen, model, chosen.limit)
    if model.sentences is not None and (chosen.top or chosen.score == "combined"):
        raise UserError(f"{chosen.run}: --top, --heatmap and --score combined are not for sentences")
    scorer = _scorer(model, chosen)
    values = _scores(model, scorer, rows, chosen)
    threshold = None if chosen.false_positive_rate is None else _threshold(model, scorer, chosen)
    _write_scores(target, rows, chosen.score, values, threshold)
    chain = chain_words(model, chosen.steps or model.evaluation_steps, "posterior")
    report(f"{len(values)} scores of {rows.source}", target, chosen, chain)
    if threshold is not None:
        flagged = int((values > threshold).sum())
        tell(f"lebm: {flagged} of {len(values)} rows score above it and are marked in the column 'flagged'")
    broken = int((~values.isfinite()).sum())
    if broken:
        tell(f"lebm: {broken} of these scores are not finite")
    if pictures:
        _write_pictures(pictures, model, rows, values, chosen)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "score", "Anomaly scores, -log p(x, z) at a posterior sample: high for what the model finds unlikely."
    )
    parser.add_argument(
        "--score",
        choices=("anomaly_score", "combined"),
        default="anomaly_score",
        help="the score of the method, or reconstruction and prior combined by their ranks among training"
        " images (images only)",
    )
    add_data(parser)
    parser.add_argument("--limit", type=count, help="score the first images only")
    parser.add_argument(
        "--top",
        type=count,
        metavar="N",
        help="also write a picture of the N most anomalous images with their scores, and one of the N least",
    )
    parser.add_argument(
        "--heatmap",
        action="store_true",
        help="in these pictures, show the squared error of the reconstruction per pixel beside each image",
    )
    parser.add_argument(
        "--false_positive_rate",
        type=float,
        metavar="RATE",
        help="flag rows above the score that this share of the run's validation images exceeds, such as 0.05",
    )
    return parser


def _scorer(model: LatentModel, chosen: argparse.Namespace) -> Scorer:
    """The score that was asked for, of a batch ``(B, *event)`` and its row numbers ``(B,)``, ``(B,)``."""
    steps = chosen.steps or model.evaluation_steps

    def of_the_method(x: Tensor, index: Tensor) -> Tensor:
        return model.anomaly_score(x, steps=steps, generator=encode_noise(chosen.seed, index))

    if chosen.score == "anomaly_score":
        return of_the_method
    from lebm.evaluation.data import training_rows
    from lebm.evaluation.reopen import reopen
    from lebm.evaluation.scores import combined, combined_parts, gathered

    def parts(x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return combined_parts(model, x, steps=steps, generator=encode_noise(chosen.seed, index))

    if model.latent_prior is None:
        raise UserError(f"--score combined: a {type(model).__name__} has no prior on latents")
    training = training_rows(reopen(chosen.run, None, model, trust=chosen.trust), chosen.seed)
    batches = training.batches(chosen.batch_size)
    normal = gathered((parts(x.to(model.device), index) for index, x in batches), training.source)
    tell(f"lebm: each score is compared with {len(training)} images of {training.source}")
    return lambda x, index: combined(parts(x, index), normal)


def _scores(model: LatentModel, scorer: Scorer, rows: Rows, chosen: argparse.Namespace) -> Tensor:
    import torch

    batches = rows.batches(chosen.batch_size)
    return torch.cat([scorer(x.to(model.device), index).double().cpu() for index, x in batches])


def _threshold(model: LatentModel, scorer: Scorer, chosen: argparse.Namespace) -> float:
    """The score at the false-positive rate that was asked for, on the validation rows of the run."""
    from lebm.evaluation.reopen import reopen
    from lebm.evaluation.scores import threshold_at

    normal = reopen(chosen.run, None, model, trust=chosen.trust).rows_of("validation")
    values = _scores(model, scorer, normal, chosen)
    threshold = threshold_at(values, chosen.false_positive_rate)
    above = int((values > threshold).sum())
    tell(
        f"lebm: threshold {threshold:.6g}: {above} of {len(values)} rows of {normal.source} score above it"
        f" ({above / len(values):.3g}, asked for {chosen.false_positive_rate:g})"
    )
    return threshold


def _write_scores(target: Path, rows: Rows, name: str, values: Tensor, threshold: float | None) -> None:
    import pyarrow
    from pyarrow import csv, parquet

    columns = {**rows.columns, name: values.tolist()}
    if threshold is not None:
        columns["flagged"] = (~(values <= threshold)).tolist()
    table = pyarrow.table(columns)
    write = parquet.write_table if target.suffix == ".parquet" else csv.write_csv
    with replaced(target) as unfinished:
        write(table, unfinished)


def _write_pictures(
    targets: dict[str, Path], model: LatentModel, rows: Rows, values: Tensor, chosen: argparse.Namespace
) -> None:
    """The images at both ends of the scores, each above its score and class; one scale for all heat maps."""
    import torch

    from lebm.plots import captioned_grid, heat, write_png

    ordered = values.nan_to_num(nan=torch.inf).argsort(stable=True)
    ends = {"most": ordered.flip(0)[: chosen.top], "least": ordered[: chosen.top]}
    shown = {end: rows.chosen(ends[end].numpy()) for end in targets}
    if not is_image(shown["most"].all()):
        raise UserError(f"{chosen.run}: --top and --heatmap need images")
    errors = {
        # squared error per pixel, the mean of the channels: (B, H, W)
        end: (reconstructions(model, part, chosen) - part.all()).square().mean(dim=1)
        for end, part in shown.items()
        if chosen.heatmap
    }
    largest = max([1e-12, *(float(error.max()) for error in errors.values())])
    for end, target in targets.items():
        captions = [f"{value:.5g}" for value in values[ends[end]].tolist()]
        columns = shown[end].columns
        if names := columns.get("class_name") or columns.get("label"):
            captions = [f"{score} ({name})" for score, name in zip(captions, names, strict=True)]
        maps = [heat(errors[end], largest)] if errors else []
        write_png(target, captioned_grid([shown[end].all(), *maps], captions))
        tell(f"lebm: {len(captions)} images, {ENDS[end]} first, in {target}")
    if errors:
        tell(f"lebm: right of each image: squared error per pixel, from 0 (black) to {largest:.3g} (white)")
