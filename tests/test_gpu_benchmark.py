"""The plan of ``benchmarks.gpu``: its parts, how it continues, and a run of every part on the CPU."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_memory, gpu_speed
from benchmarks.gpu import WHOLE, Part, open_parts, parts, run_part
from benchmarks.gpu_task import ROOT, Task

DATA = {"mnist": None, "cifar": "somewhere"}


def test_the_parts_fit_into_the_time_and_have_names_of_their_own() -> None:
    names = [part.name for part in parts()]
    assert len(set(names)) == len(names)
    assert sum(part.minutes for part in parts()) <= WHOLE
    assert names[0] == "device_tests"


def test_what_is_finished_is_not_repeated_and_what_failed_is() -> None:
    results = {"parts": {"speed": {"status": "finished"}, "memory": {"status": "failed"}}}
    names = [part.name for part in open_parts(parts(), results, DATA)]
    assert "speed" not in names
    assert {"memory", "cifar10/latent_mle"} <= set(names)
    assert not [name for name in names if name == "speed"]
    without = [part.name for part in open_parts(parts(), results, {"mnist": None, "cifar": None})]
    assert not [name for name in without if name.startswith("cifar10")]


def options_of(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(minutes=WHOLE, device="cpu", dry_run=True, results=folder / "gpu.json")


def test_a_part_that_fails_leaves_its_error_line_and_what_it_saved(tmp_path: Path) -> None:
    part = Part("broken", "gpu_runs:evaluate_many", 1, {"run": "nowhere", "n": 10})
    result = run_part(part, options_of(tmp_path), DATA)
    assert result["status"] == "failed"
    assert "nowhere" in result["error"]
    assert "result" not in result


def test_results_are_written_in_one_step(tmp_path: Path) -> None:
    gpu.write(tmp_path / "deep" / "gpu.json", {"a": 1})
    assert json.loads((tmp_path / "deep" / "gpu.json").read_text()) == {"a": 1}
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["gpu.json"]


def test_a_machine_without_gpu_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    assert stop.value.code == 2
    assert "--dry-run" in capsys.readouterr().err.splitlines()[-1]


def task_of(folder: Path, saved: list[object]) -> Task:
    return Task({}, 60.0, "cpu", True, DATA, folder, saved.append)


@pytest.mark.slow
def test_rows_of_the_speed_part_have_ratios_and_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_speed, "training_step", gpu_speed_chain)
    saved: list[object] = []
    rows = gpu_speed.speed(task_of(tmp_path, saved))
    assert {row["precision"] for row in rows} == {"fp32", "bf16-mixed"}
    assert all(row["variants"]["eager"]["kernels"] > 60 for row in rows)
    assert all(row["variants"]["published"]["times_as_fast"]["median"] == 1.0 for row in rows)
    assert saved[-1] is rows


def gpu_speed_chain(batch: int, device: str, modes: dict, size: str) -> gpu_speed.Variants:
    return gpu_speed.prior_chain(batch, device, modes)


def test_a_variant_that_fails_is_named_and_the_others_are_timed() -> None:
    def broken() -> None:
        raise ValueError("no such kernel\nmore")

    row = gpu_speed.timed({"published": lambda: torch.ones(2) + 1, "compiled": broken}, 2, "cpu")
    assert row["errors"] == {"compiled": "ValueError: no such kernel"}
    assert list(row["variants"]) == ["published"]


def test_three_steps_of_a_recipe_change_its_weights() -> None:
    model, rows = gpu_memory.built("multistage_nce/toy2d", "cpu")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gpu_memory.steps_of(model, 4, "cpu")()
    assert rows == 500
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert gpu_memory.of_recipe("multistage_nce/toy2d", "cpu", rows=2)["peak_bytes"] is None


@pytest.mark.slow
def test_a_dry_run_finishes_every_part(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--results", str(target)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    results = json.loads(target.read_text())["parts"]
    assert set(results) == {part.name for part in parts() if part.in_dry_run}
    assert {result["status"] for result in results.values()} == {"finished"}
