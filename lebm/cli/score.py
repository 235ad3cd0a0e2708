"""``lebm score RUN --data DATA``: anomaly scores as a table, a threshold, and pictures of the extremes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import chain_words, encode_noise, load_model, open_data, report, target_file, tell
from lebm.cli.flags import add_data, count, run_parser
from lebm.cli.reconstruct import reconstructions
from lebm.errors import UserError
from lebm.files import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.config.run_data import Images, SentenceRows
    from lebm.estimators.latent_model import LatentModel

    Scorer = Callable[[Tensor, Tensor], Tensor]

__all__ = ["score"]

ENDS = {"most": "the most anomalous", "least": "the least anomalous"}


def score(argv: list[str]) -> int:
    """``lebm score RUN --data PATH_OR_HUB_NAME``"""
    chosen = _parser().parse_args(argv)
    target = target_file(chosen, "scores", ".csv")
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {target}: scores are written as .csv or .parquet")
    if chosen.heatmap and chosen.top is None:
        chosen.top = 25
    pictures = {end: target.with_name(f"{target.stem}-{end}.png") for end in ENDS if chosen.top}
    for picture in pictures.values():
        if picture.exists() and not chosen.force:
            raise UserError(f"{picture} exists; choose another --out or add --force")
    model = load_model(chosen)
    images = open_data(chosen, model, chosen.limit)
    if model.sentences is not None and (
        chosen.top or chosen.false_positive_rate or chosen.score == "combined"
    ):
        raise UserError(
            f"{chosen.run}: --top, --heatmap, --false_positive_rate and --score combined need images"
        )
    scorer = _scorer(model, chosen)
    values = _scores(model, scorer, images, chosen)
    threshold = None if chosen.false_positive_rate is None else _threshold(model, scorer, chosen)
    _write_scores(target, images, chosen.score, values, threshold)
    chain = chain_words(model, _steps(model, chosen), "posterior")
    report(f"{len(values)} scores of {images.source}", target, chosen, chain)
    if threshold is not None:
        flagged = int((values > threshold).sum())
        tell(f"lebm: {flagged} of {len(values)} rows score above it and are marked in the column 'flagged'")
    broken = int((~values.isfinite()).sum())
    if broken:
        tell(f"lebm: {broken} of these scores are not finite")
    if pictures:
        _write_pictures(pictures, model, images, values, chosen)
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
        type=_rate,
        metavar="RATE",
        help="flag rows above the score that this share of the run's validation images exceeds, such as 0.05",
    )
    return parser


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and below 1, not {text!r}")
    return rate


def _steps(model: LatentModel, chosen: argparse.Namespace) -> int | None:
    return chosen.steps or model.evaluation_steps


def _scorer(model: LatentModel, chosen: argparse.Namespace) -> Scorer:
    """The score that was asked for, of a batch ``(B, *event)`` and its row numbers ``(B,)``, ``(B,)``."""
    steps = _steps(model, chosen)

    def of_the_method(x: Tensor, index: Tensor) -> Tensor:
        return model.anomaly_score(x, steps=steps, generator=encode_noise(chosen.seed, index))

    if chosen.score == "anomaly_score":
        return of_the_method
    from lebm.config.run_data import open_training
    from lebm.evaluation.scores import combined, combined_parts, gathered

    def parts(x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return combined_parts(model, x, steps=steps, generator=encode_noise(chosen.seed, index))

    if model.latent_prior is None:
        raise UserError(f"--score combined: a {type(model).__name__} has no prior on latents")
    training = open_training(model, chosen.run, chosen.seed)
    batches = training.batches(chosen.batch_size)
    normal = gathered((parts(x.to(model.device), index) for index, x in batches), training.source)
    tell(f"lebm: each score is compared with {len(training.pixels)} images of {training.source}")
    return lambda x, index: combined(parts(x, index), normal)


def _scores(
    model: LatentModel, scorer: Scorer, images: Images | SentenceRows, chosen: argparse.Namespace
) -> Tensor:
    import torch

    batches = images.batches(chosen.batch_size)
    return torch.cat([scorer(x.to(model.device), index).double().cpu() for index, x in batches])


def _threshold(model: LatentModel, scorer: Scorer, chosen: argparse.Namespace) -> float:
    """The score at the false-positive rate that was asked for, on the validation images of the run."""
    from lebm.config.run_data import open_validation
    from lebm.evaluation.thresholds import threshold_at

    normal = open_validation(model, chosen.run)
    values = _scores(model, scorer, normal, chosen)
    threshold = threshold_at(values, chosen.false_positive_rate)
    above = int((values > threshold).sum())
    tell(
        f"lebm: threshold {threshold:.6g}: {above} of {len(values)} images of {normal.source} score above it"
        f" ({above / len(values):.3g}, asked for {chosen.false_positive_rate:g})"
    )
    return threshold


def _write_scores(
    target: Path, images: Images | SentenceRows, name: str, values: Tensor, threshold: float | None
) -> None:
    import pyarrow
    from pyarrow import csv, parquet

    columns = {
        "index": images.numbers,
        "path": images.paths,
        "label": images.labels,
        "class_name": images.classes,
        name: values.tolist(),
        "flagged": None if threshold is None else (~(values <= threshold)).tolist(),
    }
    table = pyarrow.table(
        {name: pyarrow.array(column) for name, column in columns.items() if column is not None}
    )
    write = parquet.write_table if target.suffix == ".parquet" else csv.write_csv
    with replaced(target) as unfinished:
        write(table, unfinished)


def _write_pictures(
    targets: dict[str, Path],
    model: LatentModel,
    images: Images | SentenceRows,
    values: Tensor,
    chosen: argparse.Namespace,
) -> None:
    """The images at both ends of the scores, each above its score and class; one scale for all heat maps."""
    import torch

    from lebm.config.run_data import Images
    from lebm.plots import captioned_grid, heat, write_png

    assert isinstance(images, Images)
    ordered = values.nan_to_num(nan=torch.inf).argsort(stable=True)
    rows = {"most": ordered.flip(0)[: chosen.top], "least": ordered[: chosen.top]}
    shown = {end: images.chosen(rows[end].numpy()) for end in targets}
    errors = {
        # squared error per pixel, the mean of the channels: (B, H, W)
        end: (reconstructions(model, part, chosen) - part.all()).square().mean(dim=1)
        for end, part in shown.items()
        if chosen.heatmap
    }
    largest = max([1e-12, *(float(error.max()) for error in errors.values())])
    for end, target in targets.items():
        names = shown[end].classes or shown[end].labels or []
        scores = [f"{value:.5g}" for value in values[rows[end]].tolist()]
        captions = (
            [f"{score} ({name})" for score, name in zip(scores, names, strict=True)] if names else scores
        )
        maps = [heat(errors[end], largest)] if errors else []
        write_png(target, captioned_grid([shown[end].all(), *maps], captions))
        tell(f"lebm: {len(scores)} images, {ENDS[end]} first, in {target}")
    if errors:
        tell(f"lebm: right of each image: squared error per pixel, from 0 (black) to {largest:.3g} (white)")
