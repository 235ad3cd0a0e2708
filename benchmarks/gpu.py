"""All measurements that need a GPU, in about 24 minutes.

    python -m benchmarks.gpu --mnist MNIST --cifar CIFAR10    # parquet files as on the Hugging Face Hub
    python -m benchmarks.gpu --dry-run                        # tiny, on the CPU, into a temporary folder

Without ``--mnist`` the packaged digits are used, and without ``--cifar`` the parts on CIFAR-10 are skipped.
A part is a list of commands with a limit of minutes. After each part its line is appended to
``runs/gpu.jsonl``. A repeated command continues with the unfinished parts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lebm.run.folder import hardware, versions

ROOT = Path(__file__).resolve().parents[1]
FEW = ["--limit=24", "--n-samples=24", "--resamples=10", "--steps=1", "--sample-steps=1", "--features=pixels"]
GPU_TESTS = ["tests/device/test_answers.py", "tests/device", "tests/samplers"]
SHORT = ["--trainer.max_steps=2", "--data.init_args.batch_size=8", "--data.init_args.limit_train=64"]
SHORT += ["--data.init_args.limit_eval=24", "--trainer.callbacks=[ReconstructionError]"]
SHORT += ["--trainer.accelerator=cpu"]
FEATURED = ["quickstart", "latent_mle/mnist_published", "latent_mle/celeba64", "multistage_nce/mnist_conv"]
FEATURED += ["joint_hierarchical/mnist", "joint_hierarchical/mnist_vlae", "dual_mcmc/mnist"]


@dataclass(frozen=True)
class Part:
    """Python commands, their joint limit in minutes, and the files that they write."""

    minutes: float
    commands: list[list[str]]
    files: list[Path]


def parts(chosen: argparse.Namespace, runs: Path) -> dict[str, Part]:
    """Return the parts by name, the most valuable first, without parts that lack their data."""
    dry, device = chosen.dry_run, "cpu" if chosen.dry_run else "cuda"
    words = ["-m", "gpu and not slow", "-k", device, *GPU_TESTS[: 1 if dry else None]]
    found = {"tests": Part(4, [["pytest", "-q", "-rf", *words]], [])}

    def bench(name: str, minutes: float, *words: str) -> None:
        file = runs / f"{name}.json"
        less = ["--rounds=1", "--warm-up=0", "--skip", "compiled"] if dry else ["--rounds=9"]
        command = ["benchmarks.bench", *words, "--device", device, "--json", str(file), *less]
        found[name] = Part(minutes, [command], [file])

    def training(name: str, recipe: str, minutes: float, data: str | None, *words: str, suite: str) -> None:
        run, limit = runs / name, f"00:00:00:{36 * minutes:.0f}"  # the rest of the time evaluates
        fit = ["lebm", "fit", "-c", recipe, "--run_dir", str(run), "--trainer.enable_progress_bar=false"]
        fit += [f"--trainer.max_time={limit}", f"--data.init_args.path={data or 'embedded:mnist'}", *words]
        fit += ["--data.init_args.validation_size=0"] if data is None else []  # the package has few digits
        commands = [fit + SHORT * dry, ["lebm", "evaluate", str(run), "--suite", suite, *FEW * dry]]
        found[name] = Part(minutes, commands, [run / "summary.json", run / "evaluation.json"])

    bench("recipes", 2, *(f"recipes/{name}" for name in FEATURED[: 1 if dry else None]))
    bench("chains", 1, "chains/prior-512")
    for precision in ("fp32",) if dry else ("fp32", "tf32", "bf16"):
        bench(precision, 1.5, "steps/lebm-28-64", "--precision", precision)
    for digit in (4,) if dry else (1, 4, 5, 7, 9):
        name, label = f"anomaly-{digit}", f"--data.init_args.held_out_label={digit}"
        training(name, "latent_mle/mnist_anomaly", 1.2, chosen.mnist, label, suite="anomaly")
    training("vlae", "joint_hierarchical/mnist_vlae", 2, chosen.mnist, suite="image")
    for method in ("latent_mle", "dual_mcmc") if chosen.cifar else ():
        some = ["--trainer.callbacks=[ReconstructionError]"]  # the others need Inception weights
        training(f"cifar10-{method}", f"{method}/cifar10", 2, chosen.cifar, *some, suite="image")
        if not dry:
            found[f"cifar10-{method}"].commands[1] += ["--features", "random", "--n-samples", "2000"]
    return found


def result_of(name: str, part: Part) -> dict[str, Any]:
    """Run the commands of a part until one fails or the time is up, and collect their results."""
    begun, status, said = time.monotonic(), "finished", ""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for words in part.commands:
        left = 60 * part.minutes - (time.monotonic() - begun)
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                timeout=max(left, 20),
            )
        except subprocess.TimeoutExpired:
            status = "out of time"
            break
        said = done.stdout + done.stderr
        if done.returncode:
            status = "failed"
            break
    return {
        "part": name,
        "status": status,
        "seconds": round(time.monotonic() - begun, 1),
        "commands": [" ".join(["python -m", *words]) for words in part.commands],
        "last_lines": said.splitlines()[-3 if status == "finished" else -40 :],
        "written": {file.stem: json.loads(file.read_text()) for file in part.files if file.exists()},
        "versions": versions(),
        "hardware": hardware(),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mnist", metavar="FOLDER")
    parser.add_argument("--cifar", metavar="FOLDER")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", help="comma-separated names of parts, in any order (default: all)")
    parser.add_argument("--results", type=Path, help="file of results (default: runs/gpu.jsonl)")
    chosen = parser.parse_args(argv)
    if not chosen.dry_run and not torch.cuda.is_available():
        parser.error("torch finds no GPU; use --dry-run for tiny parts on the CPU")
    default = Path(tempfile.mkdtemp()) / "gpu.jsonl" if chosen.dry_run else ROOT / "runs" / "gpu.jsonl"
    target = (chosen.results or default).resolve()
    lines = target.read_text().splitlines() if target.exists() else []
    status = {line["part"]: line["status"] for line in map(json.loads, lines)}
    runs = target.with_name("gpu_runs")
    runs.mkdir(parents=True, exist_ok=True)
    planned = parts(chosen, runs)
    wanted = (chosen.only or ",".join(planned)).split(",")
    if not set(wanted) <= set(planned):
        parser.error(f"--only {chosen.only}: the parts are {', '.join(planned)}")
    for name in wanted:
        if status.get(name) != "finished":
            shutil.rmtree(runs / name, ignore_errors=True)  # the run folder of an attempt that failed
            result = result_of(name, planned[name])
            status[name] = result["status"]
            with target.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{name}: {result['status']}, {result['seconds']} s", flush=True)
    print(f"results in {target}")
    return int(any(value != "finished" for value in status.values()))


if __name__ == "__main__":
    raise SystemExit(main())
