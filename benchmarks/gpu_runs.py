"""The parts of ``benchmarks.gpu`` that call programs: device tests, trainings and evaluations."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu_task import ROOT, Task
from lebm.config import recipes
from lebm.config.recipes import merged, read

TINY = {
    "latent_mle/mnist_anomaly": ["--model.init_args.prior_sampler.init_args.fresh_steps=2"],
    "joint_hierarchical/mnist_vlae": ["--model.init_args.prior_sampler.init_args.steps=2"],
    "latent_mle/cifar10": [
        "--model.init_args.likelihood.init_args.generator.init_args.channels=[8, 8, 8]",
        "--model.init_args.prior_sampler.init_args.steps=2",
        "--model.init_args.posterior_sampler.init_args.steps=2",
    ],
    "dual_mcmc/cifar10": [
        "--model.init_args.energy.init_args.channels=[8, 8, 8, 8]",
        "--model.init_args.likelihood.init_args.generator.init_args.channels=[8, 8, 8, 8]",
        "--model.init_args.encoder.init_args.channels=[8, 8, 8, 8]",
        "--model.init_args.image_sampler.init_args.steps=2",
        "--model.init_args.posterior_sampler.init_args.steps=2",
    ],
}
"""Recipe to what makes it small enough for a dry run."""


def device_tests(task: Task) -> dict[str, Any]:
    """The tests marked ``gpu``: names of those that passed, failed or were skipped."""
    folder = (
        ["tests/test_house.py"] if task.dry else ["tests"]
    )  # collecting all tests takes a minute of a CPU
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--no-header", "--tb=line", "-m", "gpu", *folder]
    result = _call(command, task.seconds)
    if "Unknown marker" in result.stdout + result.stderr:
        return {"note": "no test is marked gpu"}
    found: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": [], "error": []}
    for outcome, name in re.findall(r"^(PASSED|FAILED|SKIPPED|ERROR) (\S.*)$", result.stdout, re.MULTILINE):
        found[outcome.lower()].append(name[:200])
    if result.returncode not in (0, 1, 5):  # failed tests and no tests at all are results
        raise RuntimeError(_last_line(result))
    return found


def train_and_evaluate(task: Task) -> dict[str, Any]:
    """Train a recipe to its length or for two thirds of the part's time, then evaluate the run."""
    chosen = task.arguments
    folder = task.runs / chosen["run"]
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
    recipe = chosen["recipe"]
    if chosen.get("without_energy"):
        recipe = str(without_energy(recipe, task.runs / f"{chosen['run']}.yaml"))
    words = ["fit", "-c", recipe, *chosen["words"], *_data(task), "--run_dir", str(folder)]
    limit = time.strftime("00:%H:%M:%S", time.gmtime(task.seconds * 2 / 3))
    words += [f"--trainer.accelerator={'cpu' if task.device == 'cpu' else 'gpu'}", "--trainer.devices=1"]
    words += [f"--trainer.max_time={limit}", "--trainer.enable_progress_bar=false"]
    if task.dry or chosen["data"] == "cifar":  # the callbacks of the recipe need Inception weights
        words.append("--trainer.callbacks=[ReconstructionError]")
    if task.dry:
        words += [*TINY[chosen["recipe"]], "--trainer.max_steps=2"]
    begun = time.monotonic()
    _lebm(words, task.seconds)
    result: dict[str, Any] = {"command": ["lebm", *words], "training": _summary(folder / "summary.json")}
    task.save(result)
    result["evaluation"] = []
    for verb, *more in chosen["evaluate"]:
        left = max(20.0, task.seconds - (time.monotonic() - begun)) + (60 if task.dry else 0)
        few = _few(task) if verb == "evaluate" else ["--trainer.accelerator=cpu"] if task.dry else []
        _lebm([verb, str(folder), *more, *few], left)
        written = folder / ("evaluation.json" if verb == "evaluate" else f"{verb}.json")
        result["evaluation"].append({"verb": [verb, *more], "written": json.loads(written.read_text())})
        task.save(result)
    return result


def without_energy(recipe: str, file: Path) -> Path:
    """Write a recipe with a standard normal in place of its energy-based prior; the file's path."""
    content = merged(read(recipes.names()[recipe]))[0]
    arguments = content["model"]["init_args"]
    arguments["prior"] = {
        "class_path": "StandardNormal",
        "init_args": {"latent_dim": sum(content["latent_dims"])},
    }
    del arguments["optimizer"]["lr"]["energy"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def evaluate_many(task: Task) -> dict[str, Any]:
    """``lebm evaluate`` of a run that is there already, at 50,000 samples."""
    run = task.runs / task.arguments["run"]
    words = ["evaluate", str(run), "--suite", "image", "--n-samples", str(task.arguments["n"])]
    begun = time.monotonic()
    _lebm([*words, *_few(task)], task.seconds + (60 if task.dry else 0))
    seconds = time.monotonic() - begun
    return {
        "command": ["lebm", *words],
        "seconds": seconds,
        "written": json.loads((run / "evaluation.json").read_text()),
    }


def made_up_cifar(folder: Path, rows: int = 64) -> Path:
    """Random pictures of the size of CIFAR-10, as folders of pictures."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    for split, n in (("train", rows), ("test", rows // 2)):
        for row, pixels in enumerate(random.integers(0, 256, (n, 32, 32, 3), dtype=numpy.uint8)):
            file = folder / split / str(row % 4) / f"{row:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


def _data(task: Task) -> list[str]:
    path = task.data.get(task.arguments["data"])
    words = [f"--data.init_args.path={path or 'embedded:mnist'}"]
    if path is None:
        words.append("--data.init_args.validation_size=0")  # there are few of them
    if task.dry:
        words += [
            "--data.init_args.batch_size=8",
            "--data.init_args.limit_train=64",
            "--data.init_args.limit_eval=24",
        ]
        if task.arguments["data"] == "cifar":
            words += ["--data.init_args.image_column=null", "--data.init_args.label_column=null"]
    return words


def _few(task: Task) -> list[str]:
    """What makes ``lebm evaluate`` quick enough for a dry run, and keeps it from the network."""
    if not task.dry:
        return ["--features", "random"] if "cifar" in str(task.arguments["run"]) else []
    return [
        "--limit",
        "24",
        "--n-samples",
        "24",
        "--resamples",
        "10",
        "--steps",
        "1",
        "--sample-steps",
        "1",
        "--features",
        "pixels",
    ]


def _lebm(words: list[str], seconds: float) -> None:
    result = _call([sys.executable, "-m", "lebm", *words], seconds)
    if result.returncode:
        raise RuntimeError(f"lebm {words[0]}: {_last_line(result)}")


def _call(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {result.returncode}"


def _summary(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text())
    names = (
        "status",
        "steps",
        "epochs",
        "wall_time_seconds",
        "seconds",
        "samples_per_second",
        "metrics",
        "seed",
    )
    return {name: content[name] for name in names if name in content}
