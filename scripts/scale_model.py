"""How step time and metric cost grow with processes and images: constants measured here, the rest by
arithmetic.

python scripts/scale_model.py            # about a minute on one core; prints the tables of docs/scale_out.md
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from lebm.checkpoint.rebuild import build
from lebm.estimators import LatentModel

ROOT = Path(__file__).parents[1]
FEATURES = 2048  # of the Inception network behind the Frechet distance
GPU = 100.0  # assumed: how many times faster than one of these cores a GPU takes a step
BANDWIDTH, LATENCY = (
    25e9,
    20e-6,
)  # assumed: bytes a second and seconds a message between GPUs of different machines


def quickest(function: Callable[[], object], repeats: int = 5) -> float:
    """Processor seconds of the quickest of several calls, the one that other programs disturb least."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def step_cost() -> tuple[float, float, int]:
    """Seconds a step costs whatever the batch, seconds an image, and bytes of gradients, of the quickstart's
    networks.
    """
    recipe = yaml.safe_load(
        (ROOT / "recipes" / "quickstart.yaml")
        .read_text()
        .replace('"${latent_dim}"', "12")
        .replace("${seed_everything}", "0")
    )
    for sampler in ("prior_sampler", "posterior_sampler"):
        recipe["model"]["init_args"][sampler]["init_args"]["compile"] = False
    model = build(recipe["model"], LatentModel)

    def seconds(size: int) -> float:
        batch = {"x": torch.rand(size, 1, 28, 28) * 2 - 1, "index": torch.arange(size)}
        return quickest(lambda: model.loss(batch, 0).backward())

    seconds(8)
    small, large = seconds(8), seconds(200)
    each = (large - small) / 192
    return max(small - 8 * each, 0.0), each, sum(p.numel() * 4 for p in model.parameters())


def _reduce(rank: int, world_size: int, folder: str, numbers: int, result: object) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    value, times = torch.zeros(numbers), []
    for _ in range(20):
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(value)
        times.append(time.perf_counter() - started)
    if rank == 0:
        result.value = min(times)  # type: ignore[attr-defined]


def reduction(world_size: int, numbers: int) -> float:
    """Seconds of the quickest of 20 sums over processes of this machine."""
    context = multiprocessing.get_context("spawn")
    result = context.Value("d", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_reduce, args=(rank, world_size, folder, numbers, result))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return float(result.value)


def main() -> None:
    torch.set_num_threads(1)
    fixed, each, gradients = step_cost()
    order = quickest(lambda: torch.randperm(4_000_000), 3) / 4e6
    matrix = torch.rand(FEATURES // 4, FEATURES // 4, dtype=torch.float64)
    distance = (
        quickest(lambda: torch.linalg.eigvals(matrix @ matrix.T), 3) * 64
    )  # a cubic cost, measured at a quarter of the size
    print("| measured constant | value |\n|---|---|")
    print(
        f"| step of the quickstart's networks, one core | {1e3 * fixed:.1f} ms + {1e3 * each:.2f} ms an"
        " image |"
    )
    print(f"| gradients | {gradients / 1e6:.1f} MB |")
    for world_size in (2, 4):
        small, large = reduction(world_size, 250), reduction(world_size, 10_000_000)
        print(
            f"| gloo, {world_size} processes of one machine | {1e3 * small:.2f} ms for 1 kB,"
            f" {1e3 * large:.0f} ms for 40 MB |"
        )
    print(f"| order of an epoch, one core | {1e9 * order:.0f} ns an image |")
    print(f"| Fréchet distance from its sums, {FEATURES} features, one core | {distance:.0f} s |")
    print(f"\nMachine: {os.cpu_count()} cores, torch {torch.__version__}.\n")
    print(
        "| GPUs | batch | compute a step | sum of gradients | efficiency | order of an epoch of 100 M | sums"
        " of the Fréchet distance |"
    )
    print("|---|---|---|---|---|---|---|")
    for gpus in (1, 8, 64, 256, 1024):
        images = 128
        compute = (fixed + each * images) / GPU
        ring = (
            0.0
            if gpus == 1
            else 2 * (gpus - 1) / gpus * gradients / BANDWIDTH + 2 * math.log2(gpus) * LATENCY
        )
        sums = (
            0.0
            if gpus == 1
            else 2 * (gpus - 1) / gpus * 8 * FEATURES**2 / BANDWIDTH + 2 * math.log2(gpus) * LATENCY
        )
        cells = [
            f"{gpus:,}",
            f"{gpus * images:,}",
            f"{1e3 * compute:.1f} ms",
            f"{1e3 * ring:.2f} ms",
            f"{compute / (compute + ring):.0%}",
        ]
        print("| " + " | ".join([*cells, f"{1e8 * order:.0f} s", f"{1e3 * sums:.1f} ms"]) + " |")


if __name__ == "__main__":
    main()
