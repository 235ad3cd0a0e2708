"""All measurements that need a GPU, in one command of about 25 minutes.

    python -m benchmarks.gpu --folder MNIST --cifar CIFAR10      # parquet files as on the Hugging Face Hub
    python -m benchmarks.gpu --dry-run                           # every part at a tiny size, on the CPU

Without ``--folder`` the images inside the package are used, and without ``--cifar`` the parts on CIFAR-10 are
skipped. Nothing is downloaded. After each part the results are written to ``results/gpu.json``; the same
command continues there and repeats only what failed. Each part is a process of its own with its own time
limit, so a part that fails or hangs does not stop the others. What a part has measured before its limit is
kept. Run folders are beside the results, in ``gpu_runs/``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_task import ROOT, Task
from lebm.files import replaced

WHOLE = 25.0  # minutes, the sum of the limits below
SPARE = 1.15  # of a limit: a part watches its own time, and is ended only if it does not


@dataclass(frozen=True)
class Part:
    """One measurement.

    Args:
        name: its name in the results.
        function: ``module:function`` in ``benchmarks``; the function takes a :class:`Task`.
        minutes: its limit when the whole takes 25 minutes.
        arguments: what the function reads besides the settings of the task.
        needs: ``cifar`` for a part that is skipped without that folder.
        in_dry_run: whether a dry run has this part.
    """

    name: str
    function: str
    minutes: float
    arguments: Mapping[str, Any]
    needs: str | None = None
    in_dry_run: bool = True


def _training(name: str, recipe: str, words: list[str], minutes: float, **more: Any) -> Part:
    arguments = {"recipe": recipe, "words": words, "run": name.replace("/", "-"), **more.pop("settings", {})}
    return Part(name, "gpu_runs:train_and_evaluate", minutes, arguments, **more)


def parts() -> list[Part]:
    """All parts, the most valuable first."""
    digits = [
        _training(
            f"anomaly/{digit}",
            "latent_mle/mnist_anomaly",
            [f"--data.init_args.held_out_label={digit}"],
            1.2,
            settings={"data": "mnist", "evaluate": [["evaluate", "--suite", "anomaly"]]},
            in_dry_run=digit == 1,
        )
        for digit in (1, 4, 5, 7, 9)
    ]
    ladder = {"data": "mnist", "evaluate": [["test"]]}
    plain = {**ladder, "without_energy": True}
    images = {"data": "cifar", "evaluate": [["evaluate", "--suite", "image", "--n-samples", "2000"]]}
    return [
        Part("device_tests", "gpu_runs:device_tests", 2, {}),
        Part("speed", "gpu_speed:speed", 5, {}),
        *digits,
        _training("vlae/energy", "joint_hierarchical/mnist_vlae", [], 1.5, settings=ladder),
        _training("vlae/no_energy", "joint_hierarchical/mnist_vlae", [], 1.5, settings=plain),
        _training("cifar10/latent_mle", "latent_mle/cifar10", [], 1.5, settings=images, needs="cifar"),
        _training("cifar10/dual_mcmc", "dual_mcmc/cifar10", [], 2, settings=images, needs="cifar"),
        Part("evaluate_50000", "gpu_runs:evaluate_many", 2, {"run": "anomaly-1", "n": 50_000}),
        Part("memory", "gpu_memory:memory", 3.5, {}),
    ]


def open_parts(chosen: list[Part], results: Mapping[str, Any], data: Mapping[str, str | None]) -> list[Part]:
    """The parts that are still to do: neither finished nor without their data."""
    done = {name for name, result in results.get("parts", {}).items() if result["status"] == "finished"}
    return [part for part in chosen if part.name not in done and (not part.needs or data.get(part.needs))]


def write(target: Path, content: Any) -> None:
    """Write JSON in one step."""
    with replaced(target) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


def run_part(part: Part, options: argparse.Namespace, data: Mapping[str, str | None]) -> dict[str, Any]:
    """Run a part in a process of its own; its result, or the last line of its error."""
    seconds = 60 * part.minutes * options.minutes / WHOLE
    runs = options.results.resolve().with_name(f"{options.results.stem}_runs")
    with tempfile.TemporaryDirectory() as folder:
        order, answer, log = (Path(folder) / name for name in ("order.json", "answer.json", "log.txt"))
        settings = {"seconds": seconds, "device": options.device, "dry": options.dry_run, "data": dict(data)}
        write(
            order,
            {"function": part.function, "arguments": dict(part.arguments), **settings, "runs": str(runs)},
        )
        begun = time.monotonic()
        with log.open("w") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu", "--order", str(order), "--answer", str(answer)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = _wait(child, SPARE * seconds + 60 * options.dry_run + 20)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        result: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - begun, 1)}
        if status != "finished":
            result["error"] = lines[-1][:500] if lines else f"exit status {child.returncode}"
        if answer.is_file():
            result["result"] = json.loads(answer.read_text())
        return result


def _wait(child: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        return "finished" if child.wait(seconds) == 0 else "failed"
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def obey(order: Path, answer: Path) -> None:
    """Run the part that an order describes, in this process."""
    content = json.loads(order.read_text())
    module, function = content.pop("function").split(":")
    content["runs"] = Path(content["runs"])
    task = Task(**content, save=lambda value: write(answer, value))
    task.save(getattr(importlib.import_module(f"benchmarks.{module}"), function)(task))


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    if options.order:
        obey(options.order, options.answer)
        return
    from benchmarks.timing import machine

    scratch = Path(tempfile.mkdtemp(prefix="lebm-gpu-")) if options.dry_run else None
    if scratch is not None:
        options.results = options.results or scratch / "gpu.json"
    options.results = options.results or ROOT / "results" / "gpu.json"
    data = {"mnist": options.folder, "cifar": options.cifar}
    if scratch is not None and not options.cifar:
        from benchmarks.gpu_runs import made_up_cifar

        data["cifar"] = str(made_up_cifar(scratch / "cifar"))
    results = json.loads(options.results.read_text()) if options.results.is_file() else {}
    results = {"machine": machine(), "device": options.device, "dry_run": options.dry_run, **results}
    chosen = [part for part in parts() if part.in_dry_run or not options.dry_run]
    if options.only:
        chosen = [part for part in chosen if part.name.startswith(tuple(options.only))]
    ends = time.monotonic() + 60 * options.minutes
    for part in open_parts(chosen, results, data):
        if time.monotonic() > ends and not options.dry_run:
            print(f"{part.name}: no time left; the same command continues", flush=True)
            break
        result = run_part(part, options, data)
        results.setdefault("parts", {})[part.name] = result
        write(options.results, results)
        told = f", {result['error']}" if "error" in result else ""
        print(f"{part.name}: {result['status']}, {result['seconds']} s{told}", flush=True)
    print(f"results in {options.results}")
    failed = [name for name, result in results.get("parts", {}).items() if result["status"] == "failed"]
    if scratch is not None and not failed:
        shutil.rmtree(scratch / "gpu_runs", ignore_errors=True)
    sys.exit(1 if failed else 0)


def _options(argv: list[str] | None) -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=style
    )
    parser.add_argument("--folder", help="MNIST as parquet files; the images inside the package if not given")
    parser.add_argument("--cifar", help="CIFAR-10, or a part of it, as parquet files")
    parser.add_argument("--minutes", type=float, default=WHOLE, help="limit of the whole (default 25)")
    parser.add_argument(
        "--only", action="append", metavar="PART", help="parts whose name begins so, repeatable"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the CPU, results in a temporary file"
    )
    parser.add_argument("--results", type=Path, help="file of the results (default results/gpu.json)")
    parser.add_argument("--order", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.device = "cpu" if options.dry_run else "cuda"
    if not (options.dry_run or options.order):
        import torch

        if not torch.cuda.is_available():
            parser.error("torch sees no GPU; --dry-run runs every part at a tiny size on the CPU")
    for folder in (options.folder, options.cifar):
        if folder and not Path(folder).is_dir():
            parser.error(f"{folder}: no such folder")
    return options


if __name__ == "__main__":
    main()
