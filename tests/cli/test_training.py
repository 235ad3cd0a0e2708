"""Training, evaluation, resuming, and the run folder they leave."""

from __future__ import annotations

import csv
import json
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lebm import checkpoint, load
from tests.cli.conftest import Run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(run / "checkpoints" / "last.ckpt")["state_dict"]


def loss_steps(run: Path) -> list[int]:
    return [int(row["step"]) for row in rows(run) if row["loss"]]


def test_run_folder_is_complete(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml",
        "checkpoints",
        "metrics.csv",
        "summary.json",
        "tensorboard",
    }
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"last.ckpt", "step=00000006.ckpt"}
    assert loss_steps(trained) == [0, 1, 2, 3, 4, 5]
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["init_args"]["prior"]["init_args"]["energy"]["init_args"]["latent_dim"] == 2
    assert config["run_dir"] == config["trainer"]["default_root_dir"] == str(trained)


def test_summary_says_what_was_run(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["seed"] == 3
    assert summary["steps"] == 6
    assert summary["epochs"] == 2
    assert summary["command"].startswith("lebm fit -c ")
    assert summary["recipe"].endswith("tiny.yaml")
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["hardware"]["threads"] == torch.get_num_threads()
    assert summary["hardware"]["cores"] >= 1
    assert summary["data"] == {"train": 12, "seed": 7}
    assert summary["chains"]["prior_sampler"]["init_args"]["steps"] == 2
    assert 0 < summary["wall_time_seconds"] < 120
    last = [row for row in rows(trained) if row["loss"]][-1]
    assert summary["metrics"]["loss"] == pytest.approx(float(last["loss"]))


def test_existing_run_is_left_alone(
    lebm: Run, trained: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in trained.rglob("*")}
    capsys.readouterr()
    assert lebm("fit", "-c", tiny) == 2
    error = capsys.readouterr().err
    assert (
        error
        == "lebm: error: runs/tiny exists; continue it with --resume, or choose another folder with --run_dir"
        " runs/tiny-2\n"
    )
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in trained.rglob("*")} == before


def test_empty_folder_may_be_used(lebm: Run, tiny: Path) -> None:
    Path("here").mkdir()
    assert lebm("fit", "-c", tiny, "--run_dir", "here") == 0
    assert Path("here/summary.json").is_file()


def test_interpolated_key_reaches_every_place(lebm: Run, tiny: Path) -> None:
    Path("over.yaml").write_text("latent_dim: 4\n")
    assert lebm("fit", "-c", tiny, "-c", "over.yaml", "--run_dir", "a") == 0
    assert lebm("fit", "-c", tiny, "--latent_dim", 5, "--run_dir", "b") == 0
    assert load("a").latent_dim == 4
    assert load("b").latent_dim == 5


def test_resumed_run_equals_the_undisturbed_one(lebm: Run, trained: Path, tiny: Path) -> None:
    assert lebm("fit", "-c", tiny, "--run_dir", "half", "--trainer.max_epochs", 1) == 0
    assert lebm("fit", "--resume", "half", "--trainer.max_epochs", 2) == 0
    expected, found = weights(trained), weights(Path("half"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rates = [
        checkpoint.read(run / "checkpoints/last.ckpt")["lr_schedulers"] for run in (trained, Path("half"))
    ]
    assert rates[0] == rates[1]
    assert [row["loss"] for row in rows(trained)] == [row["loss"] for row in rows(Path("half"))]
    summaries = [json.loads((run / "summary.json").read_text()) for run in (trained, Path("half"))]
    assert "earlier_attempts" not in summaries[0]
    (earlier,) = summaries[1]["earlier_attempts"]  # what a run has cost is the sum over its attempts
    assert earlier["steps"] == 3
    assert earlier["cpu_time_seconds"] > 0


def test_a_run_in_double_precision_resumes_with_its_averages(lebm: Run, tiny: Path) -> None:
    Path("double.yaml").write_text(
        "trainer: {precision: 64-true, callbacks+: [{class_path: EMAWeightAveraging,"
        " init_args: {decay: 0.9}}]}\n"
    )
    words = ["fit", "-c", tiny, "-c", "double.yaml", "--run_dir"]
    assert lebm(*words, "whole") == 0
    assert lebm(*words, "half", "--trainer.max_epochs", 1) == 0
    assert lebm(*words, "half", "--resume") == 0
    expected, found = weights(Path("whole")), weights(Path("half"))
    assert {value.dtype for value in found.values() if value.is_floating_point()} == {torch.float64}
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_resumed_run_takes_another_learning_rate_and_decay(lebm: Run, tiny: Path) -> None:
    optimizer = "--model.init_args.optimizer.init_args"
    assert lebm("fit", "-c", tiny, "--run_dir", "half", "--trainer.max_epochs", 1) == 0
    words = [f"{optimizer}.lr.generator", 0.02, f"{optimizer}.lr_decay", 1.0]
    words += [f"{optimizer}.weight_decay", '{"energy": 0.1}', f"{optimizer}.decoupled_weight_decay", "true"]
    assert lebm("fit", "--resume", "half", "--trainer.max_epochs", 3, *words) == 0
    content = checkpoint.read(Path("half/checkpoints/last.ckpt"))
    groups = content["optimizer_states"][0]["param_groups"]
    assert [(group["weight_decay"], group["decoupled_weight_decay"]) for group in groups] == [
        (0.0, True),
        (0.1, True),
    ]
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx({"generator": 0.5 * 0.02, "energy": 0.5 * 1e-4})  # halved after an epoch


def test_a_resumed_run_with_other_data_says_so(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.rand(2, 30, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, part in zip(("one.npy", "other.npy"), x, strict=True):
        np.save(name, part.numpy())
    Path("data.yaml").write_text(
        "data: {class_path: ArrayData, init_args: {path: one.npy, batch_size: 10}}\n"
        "trainer: {callbacks: null, limit_val_batches: 0}\n"
    )
    words = ["fit", "-c", tiny, "-c", "data.yaml", "--run_dir", "half", "--trainer.max_epochs"]
    assert lebm(*words, 1) == 0
    assert lebm(*words, 2, "--resume") == 0
    assert "other data" not in "".join(capsys.readouterr())
    assert lebm(*words, 3, "--resume", "--data.init_args.path", "other.npy") == 0
    assert "written with other data, so the run will not continue exactly: digest" in capsys.readouterr().err


def test_resume_by_recipe_starts_where_there_is_nothing_yet(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", tiny, "--resume", "--trainer.max_epochs", 1) == 0
    assert loss_steps(Path("runs/tiny")) == [0, 1, 2]
    assert lebm("fit", "-c", tiny, "--resume") == 0
    assert loss_steps(Path("runs/tiny")) == [0, 1, 2, 3, 4, 5]
    assert "from runs/tiny/checkpoints/last.ckpt" in capsys.readouterr().out


def test_resume_of_a_finished_run_says_so(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "summary.json").read_bytes()
    capsys.readouterr()
    assert lebm("fit", "--resume", trained) == 0
    assert "runs/tiny is finished (2 epochs, 6 steps); raise --trainer.max_epochs" in capsys.readouterr().out
    assert (trained / "summary.json").read_bytes() == before


def test_rows_of_a_lost_tail_are_written_once(lebm: Run, trained: Path) -> None:
    with (trained / "metrics.csv").open("a") as file:
        file.write(
            "6,2.0,1.0\n7,2.0,1.0\n8,2."
        )  # what a kill leaves: steps after the checkpoint, and half a line
    assert lebm("fit", "--resume", trained, "--trainer.max_epochs", 3) == 0
    assert loss_steps(trained) == list(range(9))


def test_moved_run_folder_resumes(lebm: Run, trained: Path) -> None:
    trained.rename("elsewhere")
    assert lebm("fit", "--resume", "elsewhere", "--trainer.max_epochs", 3) == 0
    assert not trained.exists()
    assert json.loads(Path("elsewhere/summary.json").read_text())["steps"] == 9


def test_interrupted_run_keeps_a_checkpoint(lebm: Run, tiny: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert lebm("fit", "-c", tiny, "--data.init_args.interrupt_at", 5) == 130
    summary = json.loads(Path("runs/tiny/summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["steps"] == 4
    assert checkpoint.read("runs/tiny/checkpoints/last.ckpt")["global_step"] == 4
    assert signal.getsignal(signal.SIGINT) is before
    assert lebm("fit", "--resume", "runs/tiny", "--data.init_args.interrupt_at", "null") == 0
    assert loss_steps(Path("runs/tiny")) == [0, 1, 2, 3, 4, 5]


def test_checkpoints_by_step_and_at_the_end(lebm: Run, tiny: Path) -> None:
    assert lebm("fit", "-c", tiny, "--checkpoint_every", 4, "--trainer.max_steps", 5) == 0
    assert {path.name for path in Path("runs/tiny/checkpoints").iterdir()} == {
        "last.ckpt",
        "step=00000004.ckpt",
    }
    assert checkpoint.read("runs/tiny/checkpoints/last.ckpt")["global_step"] == 5


def test_nan_pixel_stops_before_the_healthy_checkpoint_is_lost(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", tiny, "--trainer.max_epochs", 1) == 0
    capsys.readouterr()
    assert lebm("fit", "--resume", "runs/tiny", "--trainer.max_epochs", 2, "--data.init_args.nan_row", 6) == 2
    error = capsys.readouterr().err
    assert "lebm: error: the data of row 6 hold values that are not finite at step 4" in error
    assert json.loads(Path("runs/tiny/summary.json").read_text())["status"] == "failed"
    content = checkpoint.read("runs/tiny/checkpoints/last.ckpt")
    assert content["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())


def test_diverging_loss_stops_the_run(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("fit", "-c", tiny, "--model.init_args.posterior_sampler.init_args.step_size", 1e15) == 2
    assert "the loss is nan at step 0" in capsys.readouterr().err
    assert json.loads(Path("runs/tiny/summary.json").read_text())["status"] == "failed"
    assert not list(Path("runs/tiny").glob("checkpoints/*"))


def test_a_refused_start_leaves_the_folder_free(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", tiny, "--data.init_args.refuse", "no such label 12") == 2
    assert "no such label 12" in capsys.readouterr().err
    assert not Path("runs/tiny").exists()
    assert lebm("fit", "-c", tiny) == 0


def test_a_mistake_in_a_step_keeps_its_traceback(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_step(*arguments: object) -> None:
        raise ValueError("too many values to unpack")

    monkeypatch.setattr("lebm.estimators.LatentMLE.loss", broken_step)
    assert lebm("fit", "-c", tiny, "--trainer.num_sanity_val_steps", 0) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "in broken_step" in shown
    assert "ValueError: too many values to unpack" in shown
    assert "lebm: error" not in shown
    assert json.loads(Path("runs/tiny/summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_evaluation_takes_the_run_folder(lebm: Run, trained: Path, verb: str) -> None:
    kept = {path: path.read_bytes() for path in (trained / "config.yaml", trained / "summary.json")}
    assert lebm(verb, trained) == 0
    result = json.loads((trained / f"{verb}.json").read_text())
    assert result["status"] == "finished"
    assert result["command"] == f"lebm {verb} {trained} --trust tests"
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert loss_steps(trained) == [0, 1, 2, 3, 4, 5]


def test_evaluation_needs_a_checkpoint(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("test", "-c", tiny) == 2
    assert "no such run folder or checkpoint" in capsys.readouterr().err


def test_logger_can_be_switched_off(lebm: Run, tiny: Path) -> None:
    assert lebm("fit", "-c", tiny, "--trainer.logger", "false") == 0
    assert {path.name for path in Path("runs/tiny").iterdir()} == {
        "config.yaml",
        "checkpoints",
        "summary.json",
    }


def test_logger_of_the_recipe_joins_the_csv(lebm: Run, tiny: Path) -> None:
    Path("over.yaml").write_text(
        "trainer: {logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: extra}}}\n"
    )
    assert lebm("fit", "-c", tiny, "-c", "over.yaml") == 0
    assert Path("extra/lightning_logs/version_0/metrics.csv").is_file()
    assert loss_steps(Path("runs/tiny")) == [0, 1, 2, 3, 4, 5]
    assert not Path("runs/tiny/tensorboard").exists()


def test_progress_shows_loss_health_and_time_left(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", tiny, "--trainer.enable_progress_bar", "true") == 0
    (last,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    loss = float(rows(Path("runs/tiny"))[-1]["loss"])
    assert last.startswith(f"epoch 2/2  step 6/6  loss {loss:.4g}  ")
    assert re.search(r"/s  0:00:00 left  (prior|posterior)-(move|grad) \d", last)


HELD = """
import ctypes, torch
from lebm.cli.training import keep_memory
class Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
memory = ctypes.CDLL(None).mallinfo2
memory.restype = Memory
def left():
    before = memory().arena + memory().hblkhd  # bytes that glibc has from the kernel
    gradients = [torch.zeros(5_000_000) for _ in range(4)]  # 80 MB, as those of a large network
    del gradients
    return memory().arena + memory().hblkhd - before
print(left())
keep_memory()
print(left())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other settings")
def test_a_fit_keeps_the_memory_of_freed_tensors() -> None:
    """Without the setting, the memory of the gradients goes back to the kernel after every step."""
    returned, kept = map(int, subprocess.check_output([sys.executable, "-c", HELD]).split())
    assert returned < 20_000_000 < 60_000_000 < kept
