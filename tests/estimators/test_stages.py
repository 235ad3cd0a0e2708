"""When a stage ends: the rules, and what is said of a stage that ended."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from lebm.estimators import AdaptiveStages, FixedStages
from tests.estimators.test_multistage_nce import TWO_LOG_TWO, small_model


def feed(rule, up: float, down: float, steps: int, slots: int = 5, rows: int = 100):
    """Steps with constant energies; the first record, and the step it came at."""
    for step in range(1, steps + 1):
        rule.record(torch.full((rows,), up), torch.full((rows,), down), torch.ones(rows, dtype=torch.bool))
        record = rule.step(slots)
        if record is not None:
            return record, step
    return None, steps


def test_fixed_lengths_a_stage():
    rule = FixedStages([3, 5], window=2)
    assert feed(rule, -1.0, 1.0, 10)[1] == 3
    assert feed(rule, -1.0, 1.0, 10)[1] == 5
    record, step = feed(rule, -1.0, 1.0, 10, slots=1)
    assert (record.stage, step, rule.ended) == (3, 5, True)
    assert record.loss == pytest.approx(2 * math.log1p(math.exp(-1.0)))
    assert record.accuracy == 1.0
    assert rule.step(1) is None


def test_adaptive_stages_end_for_the_right_reason():
    rule = AdaptiveStages(min_steps=20, max_steps=60, window=5, patience=2)
    record, step = feed(rule, 0.0, 0.0, 100)
    assert (step, record.kept, rule.ended) == (20, False, True)
    assert record.loss == pytest.approx(TWO_LOG_TWO)
    rule = AdaptiveStages(min_steps=20, max_steps=60, window=5, patience=2)
    record, step = feed(rule, -10.0, 10.0, 100)
    assert (step, record.kept, rule.ended) == (20, True, False)
    assert "separated" in record.reason
    record, step = feed(rule, -1.0, 1.0, 100)
    assert (step, record.kept) == (20, True)
    assert "levelled off" in record.reason
    for step in range(1, 101):
        level = 1.0 + 0.05 * step
        rule.record(torch.full((10,), -level), torch.full((10,), level), torch.ones(10, dtype=torch.bool))
        record = rule.step(5)
        if record is not None:
            break
    assert step == 60
    assert record.reason == "its steps are done"


def test_an_over_confident_classifier_ends_its_stage():
    """Trained loss would go on falling; the held-out one rises, and that is what is looked at."""
    rule = AdaptiveStages(min_steps=10, max_steps=1000, window=5, patience=3)
    held_out = torch.arange(100) % 10 == 0
    for step in range(1, 1001):
        confidence = 0.2 * step
        energies = torch.where(held_out, 0.02 * confidence, -confidence)  # wrong on what it has not seen
        rule.record(energies, -energies, held_out)
        record = rule.step(5)
        if record is not None:
            break
    assert step < 50
    assert record.loss > TWO_LOG_TWO


def test_held_out_observations_train_nothing():
    model = small_model(AdaptiveStages(held_out=4))
    energies = []
    for moved in (0, 1):  # an observation that is held out, and one that is not
        positives, negatives = (
            torch.randn(8, 3, generator=torch.Generator().manual_seed(1)),
            torch.zeros(8, 3),
        )
        positives[moved] += 3.0
        model.zero_grad()
        with torch.no_grad():
            model.prior.tilt.active.net[-1].weight.fill_(0.1)
        model.classification(positives, negatives, torch.arange(8)).backward()
        energies.append(model.prior.tilt.active.net[0].weight.grad.clone())
    model.zero_grad()
    positives = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    model.classification(positives, torch.zeros(8, 3), torch.arange(8)).backward()
    reference = model.prior.tilt.active.net[0].weight.grad
    assert torch.equal(energies[0], reference)
    assert not torch.equal(energies[1], reference)


def test_a_stage_that_separates_perfectly_is_reported(caplog):
    model = small_model(AdaptiveStages(min_steps=5, window=5, held_out=2), max_stages=1)
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    with caplog.at_level(logging.WARNING, "lebm.estimators"):
        for _ in range(5):
            model.stages.record(
                torch.full((8,), -9.0), torch.full((8,), 9.0), torch.ones(8, dtype=torch.bool)
            )
            record = model.after_step(optimizer)
    assert record.kept
    assert "stage 1 separates its samples with accuracy 1.0000" in caplog.text
    assert "raise max_stages" in caplog.text


@pytest.mark.parametrize(("second", "warned"), [(5, False), (7, True)])
def test_a_stage_that_separates_better_than_the_last_one_is_reported(caplog, second, warned):
    """An accuracy of 3/4, and then of 5/8 or 7/8: the classes can only come nearer."""
    model = small_model(FixedStages(1), max_stages=2)
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    with caplog.at_level(logging.WARNING, "lebm.estimators"):
        for right in (6, second):
            up = torch.where(torch.arange(8) < right, -1.0, 1.0)
            model.stages.record(up, -up, torch.ones(8, dtype=torch.bool))
            assert model.after_step(optimizer) is not None
    assert ("stage 2 separates prior and posterior better than stage 1" in caplog.text) == warned
    assert ("MALA" in caplog.text) == warned
