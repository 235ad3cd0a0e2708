"""Anomaly detection from the outputs of a test."""

import logging
from pathlib import Path

import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lebm.callbacks import AnomalyDetection
from lebm.data.images import to_unit_range
from lebm.errors import UserError
from tests.callbacks.tiny import EchoModel, TinyData, trainer


def test_figures(tmp_path: Path) -> None:
    data, callback = TinyData(), AnomalyDetection()
    results = trainer(tmp_path, [callback]).test(EchoModel(), datamodule=data, verbose=False)
    score = 100 * to_unit_range(data.test.images()).flatten(1).sum(dim=1)
    truth = data.test.anomaly
    assert truth is not None
    assert callback.figures["test/auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-6)
    assert callback.figures["test/auprc"] == pytest.approx(average_precision_score(truth, score), abs=1e-6)
    assert results[0].keys() == {
        "test/auroc",
        "test/auprc",
        "test/auprc_trapezoid",
        "test/anomaly_base_rate",
        "test/auprc_lowest",
    }
    assert callback.figures["test/anomaly_base_rate"] == pytest.approx(7 / 23)


def test_non_finite_scores_are_refused_before_any_metric(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test anomaly scores: 1 non-finite.*first at index 11"):
        trainer(tmp_path, [AnomalyDetection()]).test(
            EchoModel(poison=11), datamodule=TinyData(), verbose=False
        )


@pytest.mark.parametrize(("held_out", "reason"), [(None, "no 'anomaly' flags"), (9, "no anomalies")])
def test_absent_figures_are_absent_and_explained_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, held_out: int | None, reason: str
) -> None:
    callback = AnomalyDetection()
    run = trainer(tmp_path, [callback])
    with caplog.at_level(logging.WARNING, logger="lebm"):
        for _ in range(2):
            assert run.test(EchoModel(), datamodule=TinyData(held_out_label=held_out), verbose=False) == [{}]
    assert [
        record.message
        for record in caplog.records
        if record.name == "lebm.callbacks" and reason in record.message
    ].__len__() == 1
    assert callback.figures == {}
