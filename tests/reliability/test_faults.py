"""What a user sees of each fault, and what survives it. ``docs/reliability.md`` holds the same table in
words.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lebm import checkpoint
from lebm.__main__ import main
from tests.reliability.faults import FAULTS
from tests.reliability.methods import METHODS, description

AT, EVERY, STEPS = (
    5,
    2,
    8,
)  # the fault strikes in the sixth step, checkpoints are written every second, eight are asked for


@dataclass(frozen=True)
class Seen:
    """What must follow from a fault.

    Attributes:
        status: exit status; ``None`` for a traceback.
        line: pattern of the line on stderr; empty for none.
        step: of the checkpoint that is left.
        ended: ``status`` in ``summary.json``.
    """

    status: int | None
    line: str
    step: int
    ended: str = "failed"


NOT_FINITE = Seen(
    2,
    r"(the loss is (nan|-?inf)|the (gradient of|parameter) \S+ is not finite|the energy gap is \S+, beyond"
    r" \S+ \S+) at step [56]; ",
    4,
)
FULL = (
    r"cannot write the checkpoint \S+ \({}\); earlier checkpoints are untouched, so fix it and continue with"
    r" --resume"
)
EXPECTED: dict[str, Seen] = {
    "NaN pixel": Seen(
        2,
        r"the data of row \d+ hold values that are not finite at step 5; .*Repair or leave out these rows",
        4,
    ),
    "infinite pixel": Seen(2, r"the data of row \d+ hold values that are not finite at step 5", 4),
    "NaN weight, first network": NOT_FINITE,
    "infinite weight, first network": NOT_FINITE,
    "NaN weight, last network": NOT_FINITE,
    "NaN gradient": Seen(2, r"the gradient of \S+ is not finite at step 5", 4),
    "NaN moment of Adam": Seen(2, r"the parameter \S+ is not finite at step {after}", 4),
    "exploding posterior chain": NOT_FINITE,
    "exploding model chain": NOT_FINITE,
    "learning rate of 1e38": Seen(2, r"not finite at step {after}|the loss is \S+ at step 6", 4),
    "NaN in a chain pool": Seen(0, "", 8, "finished"),  # the rows of a pool are started anew
    "SIGTERM": Seen(143, "", 6, "interrupted"),
    "SIGUSR1": Seen(138, "", 6, "interrupted"),
    "Ctrl-C": Seen(130, "", 6, "interrupted"),
    "second Ctrl-C": Seen(130, "", 5, "interrupted"),
    "full disk": Seen(2, FULL.format("No space left on device"), 4),
    "read-only file system": Seen(2, FULL.format("Read-only file system"), 4),
    "disk error": Seen(2, FULL.format("Input/output error"), 4),
    "checkpoint folder deleted": Seen(2, r"\(the folder has been removed since the last checkpoint\)", -1),
    "out of GPU memory": Seen(2, "out of memory; lower --data.init_args.batch_size", 5),
    "dead data worker": Seen(1, r"a data loading process has died .*killed by signal: Killed.*--resume", 5),
    "error in the program": Seen(None, "", 5),
}
# where the fast suite looks; the slow one takes every fault with every method
OF_ITS_KIND = (
    "NaN pixel",
    "NaN weight, first network",
    "NaN gradient",
    "exploding posterior chain",
    "SIGUSR1",
    "Ctrl-C",
    "full disk",
)
FAST = {
    fault: list(METHODS)[number % len(METHODS)]
    for number, fault in enumerate((*OF_ITS_KIND, "dead data worker", "SIGTERM"))
}
ENDS = ("SIGTERM", "SIGUSR1", "Ctrl-C", "second Ctrl-C", "full disk")


def pairs(faults: Iterable[str], fast: Mapping[str, str]) -> list[Any]:
    return [
        pytest.param(
            fault, method, marks=[] if fast.get(fault) == method else pytest.mark.slow, id=f"{fault}-{method}"
        )
        for fault in faults
        for method in METHODS
    ]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with signals and system calls put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", os.fsync)
    return tmp_path / "recipe.yaml"


def write_recipe(target: Path, method: str, callbacks: list[Any] | None = None, **fault: Any) -> None:
    content = {
        "seed_everything": 3,
        "checkpoint_every": EVERY,
        "model": (
            description(method, evaluation_steps=2)
            if "posterior_sampler" in METHODS[method]["init_args"]
            else description(method)
        ),
        "data": {"class_path": "tests.reliability.faults.FaultyData", "init_args": fault},
        "trainer": {
            "max_steps": STEPS,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "lebm.callbacks.ReconstructionError"}, *(callbacks or [])],
        },
    }
    target.write_text(yaml.safe_dump(content))


def fit(*words: Any) -> int:
    return main(["fit", *map(str, words), "--run_dir", "run", "--trust", "tests"])


def state() -> dict[str, Any]:
    return checkpoint.newest("run")[1]


def healthy(content: dict[str, Any]) -> bool:
    return all(
        torch.isfinite(value).all()
        for name, value in content["state_dict"].items()
        if torch.is_tensor(value) and "pool" not in name
    )


def ends_as_undisturbed(recipe: Path, method: str) -> None:
    """The same run without the fault, and the interrupted one continued, have equal weights."""
    from tests.estimators.test_resume import same

    write_recipe(recipe, method)
    assert fit("--resume", "-c", recipe) == 0
    resumed = state()
    shutil.move("run", "disturbed")
    assert fit("-c", recipe) == 0
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        same(resumed[key], state()[key], key)


@pytest.mark.parametrize(("fault", "method"), pairs(FAULTS, FAST))
def test_fault(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str, method: str
) -> None:
    expected = EXPECTED[fault]
    # what an optimiser step spoils is seen in the next batch, or before the second optimiser step of the same
    # one
    pattern = expected.line.replace("{after}", "5" if method == "dual_mcmc_alternate" else "6")
    write_recipe(recipe, method, fault=fault, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", os.fsync)
        if expected.status is None:
            with pytest.raises(ZeroDivisionError):
                fit("-c", recipe)
        else:
            assert fit("-c", recipe) == expected.status
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("lebm: error: ")]
    assert len(lines) == bool(expected.line), error
    assert re.search(pattern, error), error
    assert "Traceback" not in error
    assert json.loads(Path("run/summary.json").read_text())["status"] == expected.ended
    if expected.step < 0:
        assert not Path("run/checkpoints").exists()
        return
    assert state()["global_step"] == expected.step
    assert healthy(state())
    assert not list(Path("run").rglob(".*unfinished*"))


@pytest.mark.parametrize(("fault", "method"), pairs(ENDS, {"SIGTERM": "multistage_nce"}))
def test_a_stopped_run_ends_as_an_undisturbed_one(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, fault: str, method: str
) -> None:
    write_recipe(recipe, method, fault=fault, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", os.fsync)
        assert fit("-c", recipe) == EXPECTED[fault].status
    ends_as_undisturbed(recipe, method)


def test_every_fault_has_an_expectation() -> None:
    assert EXPECTED.keys() == FAULTS.keys()
    assert FAST.keys() <= FAULTS.keys()
    assert set(FAST.values()) == set(METHODS)


ONE_FAST = [
    pytest.param(method, marks=[] if method == "latent_mle" else pytest.mark.slow) for method in METHODS
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_signal_in_validation(recipe: Path, method: str) -> None:
    write_recipe(recipe, method, fault="SIGTERM", at=0, in_validation=True)
    assert fit("-c", recipe) == 143
    assert state()["global_step"] == 4
    ends_as_undisturbed(recipe, method)
    kept = [
        json.loads((Path(run) / "summary.json").read_text())["metrics"]["val/reconstruction_mse"]
        for run in ("disturbed", "run")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("method", ONE_FAST)
def test_recover_goes_on(
    recipe: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, method: str
) -> None:
    policy = {"class_path": "lebm.callbacks.Divergence", "init_args": {"policy": "recover", "keep_every": 2}}
    for number, fault in enumerate(
        ("NaN weight, first network", "NaN moment of Adam", "exploding posterior chain")
    ):
        shutil.rmtree("run", ignore_errors=True)
        write_recipe(recipe, method, [policy], fault=fault, at=AT)
        with caplog.at_level(logging.WARNING):
            assert fit("-c", recipe) == 0, capsys.readouterr().err
        assert "back to the state of step 4" in caplog.text
        summary = json.loads(Path("run/summary.json").read_text())
        assert summary["status"] == "finished"
        recoveries = summary["protocols"]["Divergence"]["recoveries"]
        assert recoveries[0]["back_to"] == 4, number
        assert healthy(state())
        assert state()["global_step"] == STEPS


@pytest.mark.parametrize("method", ONE_FAST)
def test_a_damaged_or_missing_last_checkpoint(
    recipe: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    write_recipe(recipe, method, fault="SIGTERM", at=3)
    assert fit("-c", recipe) == 143
    last = Path("run/checkpoints/last.ckpt")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    (last.parent / ".last.ckpt.0123abcd.unfinished").write_bytes(b"what a killed writer leaves")
    with caplog.at_level(logging.WARNING):
        ends_as_undisturbed(recipe, method)
    assert (
        "last.ckpt: not a readable checkpoint (its checksum is wrong); using"
        " run/checkpoints/step=00000004.ckpt" in caplog.text
    )
    assert not list(Path("disturbed").rglob(".*unfinished"))


def test_metrics_refuse_what_is_not_finite(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(recipe, "latent_mle", fault="NaN pixel", at=0, in_validation=True)
    assert fit("-c", recipe) == 2
    assert re.search(
        "lebm: error: .*ReconstructionError.*not finite|lebm: error: .*non-finite", capsys.readouterr().err
    )
    assert healthy(state())
