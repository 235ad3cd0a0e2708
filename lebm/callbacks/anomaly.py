"""Anomaly detection by the anomaly score of the model."""

import torch
from lightning.pytorch import Trainer

from lebm.callbacks.base import LOWER_STEP, Batch, EvaluationCallback, data_of, log
from lebm.callbacks.publish import publish_histogram, publish_table, takes_tables
from lebm.data.rows import ImageRows
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.anomaly import anomaly_figures
from lebm.metrics.rows import NonFinite, RowCollector, finite_rows
from lebm.plots.grids import image_grid

TABLED = 25


class AnomalyDetection(EvaluationCallback):
    """Ranking of samples by the model's ``anomaly_score``, with ``batch["anomaly"]`` as the truth.

    It logs ``auroc``, ``auprc``, ``auprc_trapezoid``, ``auprc_lowest`` and ``anomaly_base_rate``, see
    :func:`~lebm.metrics.anomaly_figures`, if a stage has both anomalies and normal samples. Scores are logged
    as histograms, ``histograms/<stage>_score_normal`` and ``histograms/<stage>_score_anomalous``, and the 25
    samples with the highest scores as ``tables/<stage>_scores`` in Weights & Biases.

    Raises:
        UserError: if a score is not finite, at the end of the pass.

    Example:
        >>> from lebm.callbacks import AnomalyDetection
        >>> AnomalyDetection().figures
        {}
    """

    def __init__(self) -> None:
        self._rows, self._bad = RowCollector(["score", "anomaly", "label"]), NonFinite()
        self._explained = False

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        if "anomaly" not in batch:
            return
        index, score = batch["index"], self.output(outputs, "anomaly_score").double()
        finite = finite_rows(score)
        self._bad.update(finite, index)
        label = batch.get("label", torch.full_like(index, -1))
        anomaly = batch["anomaly"].byte()  # not every backend gathers booleans
        rows = {"index": index, "score": score, "anomaly": anomaly, "label": label}
        self._rows.update(**{name: column[finite] for name, column in rows.items()})

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        if not self._rows.update_called:
            self._explain(trainer, "the data has no 'anomaly' flags; give the data module a held_out_label")
            return
        self._bad.refuse(f"{stage} anomaly scores", LOWER_STEP.format("posterior"))
        rows = {name: column.cpu() for name, column in self._rows.table().items()}
        anomaly = rows["anomaly"].bool()
        metrics = anomaly_figures(rows["score"], anomaly)
        if not metrics:
            count = "only" if anomaly.any() else "no"
            self._explain(trainer, f"the {stage} split holds {count} anomalies")
            return
        metrics["anomaly_base_rate"] = metrics.pop("base_rate")
        self.report(model, {f"{stage}/{name}": value for name, value in metrics.items()})
        self.protocol.update(score=model.anomaly_score_name, chain_settings=model.chain_settings)
        publish_histogram(trainer, f"{stage}_score_normal", rows["score"][~anomaly])
        publish_histogram(trainer, f"{stage}_score_anomalous", rows["score"][anomaly])
        if not takes_tables(trainer):
            return
        top = rows["score"].argsort(descending=True, stable=True)[:TABLED]
        shown = {"row": rows["index"], "class": rows["label"], "anomaly": anomaly, "score": rows["score"]}
        columns = {name: column[top].tolist() for name, column in shown.items()}
        split = getattr(data_of(trainer), {"val": "validation", "test": "test"}[stage], None)
        if isinstance(split, ImageRows):  # the data without augmentation
            images = split.observations(rows["index"][top].numpy())
            columns["image"] = [image_grid(image[None], 1) for image in images]
        publish_table(trainer, f"{stage}_scores", list(columns), zip(*columns.values(), strict=True))

    def _explain(self, trainer: Trainer, reason: str) -> None:
        if trainer.is_global_zero and not self._explained:
            log.warning("no anomaly metrics: %s", reason)
        self._explained = True
