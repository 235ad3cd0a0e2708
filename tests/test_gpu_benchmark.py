"""The benchmarks: what is compared is the same work, and the plan for a GPU runs on the CPU."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import bench, gpu
from benchmarks.rivals import check_agreement, same_size
from benchmarks.steps import batch_of, stepper
from lebm import from_recipe


def test_another_chain_is_refused() -> None:
    def chain(size: float) -> Tensor:
        return size * torch.randn(200, 5)

    torch.manual_seed(0)
    check_agreement({"published": lambda: chain(1.0), "lebm": lambda: chain(1.0)})
    with pytest.raises(ValueError, match=r"^lebm samples another chain"):
        check_agreement({"published": lambda: chain(1.0), "lebm": lambda: chain(1.2)})


def test_networks_of_another_size_are_refused() -> None:
    same_size(nn.Linear(3, 4), nn.Linear(3, 4))
    with pytest.raises(AssertionError, match="16 and 20 parameters"):
        same_size(nn.Linear(3, 4), nn.Linear(4, 4))


def test_ratios_are_taken_inside_a_round() -> None:
    seconds = {"slow": [4.0, 40.0, 8.0], "fast": [2.0, 10.0, 8.0]}
    assert bench.ratios(seconds) == {"slow": [1.0, 1.0, 1.0], "fast": [1.5, 2.0, 3.0]}


def test_every_variant_runs_once_a_round_and_is_timed() -> None:
    order: list[str] = []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    names = {"a": 0.0, "b": 0.0, "c": 0.02}
    variants = {
        name: lambda name=name, seconds=seconds: work(name, seconds) for name, seconds in names.items()
    }
    timed = bench.interleave(variants, rounds=8, warm_up=1)
    rounds = [order[first : first + 3] for first in range(0, 27, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({*map(tuple, rounds)}) > 1
    assert [len(timed[name]) for name in names] == [8, 8, 8]
    assert min(timed["c"]) >= 0.02


def test_a_group_that_fails_is_named_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(device: str) -> bench.Variants:
        raise ValueError("no such kernel\nmore")

    fine = {"published": lambda: torch.ones(2) + 1, "lebm": lambda: torch.ones(2) + 1}
    groups = {"x/broken": broken, "x/fine": lambda device: fine, "xy": broken}
    monkeypatch.setattr(bench, "GROUPS", groups)
    file = tmp_path / "x.json"
    assert bench.main(["x", "--rounds", "2", "--json", str(file)]) == 1
    first, second = json.loads(file.read_text())["groups"]
    assert first == {"group": "x/broken", "error": "ValueError: no such kernel"}
    assert list(second["seconds"]) == ["published", "lebm"]
    assert second["times_as_fast"]["published"] == [1.0, 1.0, 1.0]
    assert "x/fine" in capsys.readouterr().out


def test_a_group_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main(["prior-100"])
    assert stop.value.code == 2
    assert "no group prior-100; --list names them" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["multistage_nce/toy2d", "quickstart", "latent_mle/text_small"])
def test_a_step_of_a_recipe_changes_its_weights(name: str) -> None:
    model, _ = from_recipe(name)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    stepper(model, batch_of(model, 4, "cpu"))()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


KINDS = ("stages/8x64", "layers/3x2", "steps/by-stage", "steps/trainer", "dual_mcmc/28-small", "text/small")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_group_of_every_kind_runs(name: str) -> None:
    """The others are in the dry run."""
    assert bench.main([name, "--rounds", "1", "--warm-up", "0"]) == 0


def plan(folder: Path, cifar: str | None = None) -> dict[str, gpu.Part]:
    return gpu.parts(argparse.Namespace(dry_run=False, mnist=None, cifar=cifar), folder)


def test_the_parts_on_a_gpu_fit_into_25_minutes(tmp_path: Path) -> None:
    parts = plan(tmp_path, "somewhere")
    assert next(iter(parts)) == "tests"
    assert sum(part.minutes for part in parts.values()) <= 25
    assert parts.keys() - plan(tmp_path).keys() == {"cifar10-latent_mle", "cifar10-dual_mcmc"}


def test_groups_of_the_plan_exist(tmp_path: Path) -> None:
    benches = [
        words for part in plan(tmp_path).values() for words in part.commands if "benchmarks.bench" in words
    ]
    assert len(benches) == 5
    for words in benches:
        names = words[1 : words.index("--device")]
        names = names[: names.index("--precision")] if "--precision" in names else names
        assert all(bench.matching([name]) for name in names)


def test_a_part_ends_at_its_first_failure_and_keeps_what_was_written(tmp_path: Path) -> None:
    written = tmp_path / "a.json"
    write = ["timeit", "-n1", "-r1", f"open({str(written)!r}, 'w').write('[1]')"]
    part = gpu.Part(1, [write, ["lebm", "evaluate", str(tmp_path / "nowhere")], ["timeit"]], [written])
    result = gpu.result_of("broken", part)
    assert result["status"] == "failed"
    assert "nowhere" in result["last_lines"][-1]
    assert result["written"] == {"a": [1]}


def test_what_has_finished_is_not_repeated_and_what_failed_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target, ran = tmp_path / "gpu.jsonl", []
    lines = [{"part": "tests", "status": "finished"}, {"part": "fp32", "status": "failed"}]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def result(name: str, part: gpu.Part) -> dict[str, object]:
        ran.append(name)
        return {"part": name, "status": "finished", "seconds": 1.0}

    monkeypatch.setattr(gpu, "result_of", result)
    assert gpu.main(["--dry-run", "--results", str(target)]) == 0
    assert ran == ["recipes", "chains", "fp32", "anomaly-4", "vlae"]
    assert gpu.main(["--dry-run", "--results", str(target)]) == 0
    assert len(ran) == 5
    assert len(target.read_text().splitlines()) == 7


def test_a_machine_without_gpu_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    assert stop.value.code == 2
    assert "--dry-run" in capsys.readouterr().err.splitlines()[-1]


def test_only_chooses_parts_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dry-run", "--results", str(tmp_path / "gpu.jsonl"), "--only"]
    assert gpu.main([*words, "recipes"]) == 0
    assert capsys.readouterr().out.startswith("recipes: finished")
    with pytest.raises(SystemExit) as stop:
        gpu.main([*words, "recipes,others"])
    assert stop.value.code == 2
    assert "--only recipes,others: the parts are tests, recipes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_finishes_every_part(tmp_path: Path) -> None:
    target = tmp_path / "gpu.jsonl"
    assert gpu.main(["--dry-run", "--results", str(target)]) == 0
    results = {line["part"]: line for line in map(json.loads, target.read_text().splitlines())}
    assert list(results) == ["tests", "recipes", "chains", "fp32", "anomaly-4", "vlae"]
    assert {*results["anomaly-4"]["written"]} == {"summary", "evaluation"}
    assert len(results["fp32"]["written"]["fp32"]["groups"]) == 1
