"""The file that an evaluation leaves."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lebm.errors import UserError
from lebm.evaluation.intervals import Interval
from lebm.evaluation.record import FORMAT, Figure, SuiteResult, beside, merged, read_evaluation


def content(**changes: Any) -> dict[str, Any]:
    figure = Figure.of("auroc", Interval(0.7, 0.6, 0.8, "bootstrap"), 100, "test", base_rate=0.3)
    suite = SuiteResult(
        {"name": "held-out label"}, [figure], wall_time_seconds=1.0, origin={"command": "lebm"}
    )
    head = {
        "run": "r",
        "checkpoint": "c",
        "checkpoint_sha256": "00",
        "weights": "ema",
        "method": "M",
        "seed": 0,
    }
    return {"lebm_evaluation": FORMAT, **head, "suites": {"anomaly": asdict(suite)}, **changes}


def test_written_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(content()))
    assert read_evaluation(file) == content()
    assert Figure.of("x", Interval(math.nan, math.inf, 1.0, ""), 3, "test").value is None


def test_suites_of_the_same_weights_are_kept() -> None:
    new = content(suites={"ood": {"figures": []}})
    assert set(merged(content(), new)["suites"]) == {"anomaly", "ood"}
    assert set(merged(content(checkpoint_sha256="11"), new)["suites"]) == {"ood"}
    assert set(merged(content(seed=1), new)["suites"]) == {"ood"}
    assert merged(None, new) == new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file that lebm evaluate wrote"),
        ("[]", "not a file that lebm evaluate wrote"),
        (json.dumps(content(lebm_evaluation=FORMAT + 1)), "of format 3, and this lebm reads 2"),
        (json.dumps(content(lebm_evaluation=FORMAT - 1)), "of format 1, .* run lebm evaluate again"),
        (json.dumps({"lebm_evaluation": FORMAT, "run": "r"}), "wrote .'suites'"),
        (json.dumps(content(suites={"image": {"figures": [{"name": "fid"}]}})), "wrote .*missing"),
        (json.dumps(content(suites=[])), "wrote .'list' object"),
    ],
)
def test_refusals_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_evaluation(file)
    assert str(file) in str(caught.value)
    with pytest.raises(UserError, match="absent"):
        read_evaluation(tmp_path / "absent")


def test_an_auprc_is_shown_beside_guessing() -> None:
    figure = {"name": "auprc/energy", "details": {"base_rate": 0.1, "auprc_lowest": 0.0523}}
    assert beside(figure) == "guessing 0.1, lowest 0.0523"
    assert beside(figure | {"name": "auroc/energy"}) == ""
    assert beside({"name": "auprc/energy", "details": {}}) == ""
