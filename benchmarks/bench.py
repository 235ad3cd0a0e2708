"""Time variants of the same work beside each other.

    python -m benchmarks.bench --list
    python -m benchmarks.bench chains/prior-100 text    # one group, and all groups of text/
    python -m benchmarks.bench recipes --device cuda --precision bf16 --json FILE

The variants of a group run once per round in random order; the first one is the reference. The output is the
median of the seconds, the speed relative to the reference (median and quartiles of the ratios of the rounds),
and on a GPU the peak of the allocated memory. ``--json`` stores the seconds of all rounds. ``ebmkit`` and
``torchebm`` are compared if installed: ``pip install --no-deps torchebm==0.8.9 ebmkit==0.16.0``."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import chains, steps
from lebm.run.folder import hardware, versions

GROUPS = {**chains.GROUPS, **steps.GROUPS}


def matching(chosen: list[str]) -> list[str]:
    """Return the groups of these names, and in folders of these names; all without a name."""
    return [
        group
        for group in GROUPS
        if not chosen or any(group == name or group.startswith(f"{name}/") for name in chosen)
    ]


def interleave(
    variants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2, seed: int = 0
) -> dict[str, list[float]]:
    """Return the seconds of every variant in every round, after ``warm_up`` rounds."""
    order, shuffle = list(variants), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(-warm_up, rounds):
        shuffle.shuffle(order)
        for name in order:
            begun = time.perf_counter()
            variants[name]()
            if torch.cuda.is_available():  # a call returns before the GPU has done its work
                torch.cuda.synchronize()
            if number >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratios(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Return the speed of each variant relative to the first: quartiles of the ratios within a round."""
    first = np.array(next(iter(seconds.values())))
    return {name: np.quantile(first / own, [0.25, 0.5, 0.75]).tolist() for name, own in seconds.items()}


def in_precision(work: Callable[[], object], precision: str, device: str) -> Callable[[], object]:
    """Return a variant under autocast for ``bf16``; each call enters it, so weights are converted again."""

    def mixed() -> object:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            return work()

    return mixed if precision == "bf16" else work


def peak(work: Callable[[], object], device: str) -> int | None:
    """Return the largest number of bytes that a call has allocated on a GPU; ``None`` on the CPU."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def measured(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a group, or the error that ended it."""
    try:
        variants = {
            variant: in_precision(work, chosen.precision, chosen.device)
            for variant, work in GROUPS[name](chosen.device).items()
            if variant not in chosen.skip
        }
        bytes_ = {variant: peak(work, chosen.device) for variant, work in variants.items()}
        seconds = interleave(variants, chosen.rounds, chosen.warm_up)
    except Exception as error:
        return {"group": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"group": name, "seconds": seconds, "times_as_fast": ratios(seconds), "peak_bytes": bytes_}


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['group']}" + (f": {result['error']}" if "error" in result else ""))
    for name, (low, middle, high) in result.get("times_as_fast", {}).items():
        seconds, bytes_ = statistics.median(result["seconds"][name]), result["peak_bytes"][name]
        memory = f"{bytes_ / 2**20:10.0f} MiB" if bytes_ is not None else ""
        print(f"  {name:44}{seconds:10.4f} s{middle:8.2f} ({low:.2f} to {high:.2f}){memory}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="groups, or their folders (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=2, help="number of uncounted rounds (default: 2)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--skip", nargs="+", default=[], metavar="VARIANT", help="skipped variants")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--list", action="store_true", help="list of the groups, without timing")
    chosen = parser.parse_args(argv)
    names = matching(chosen.names)
    if not names:
        parser.error(f"no group {' or '.join(chosen.names)}; --list names them")
    if chosen.list:
        print("\n".join(names))
        return 0
    torch.set_float32_matmul_precision("highest" if chosen.precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = chosen.precision != "fp32"
    report = {"versions": versions(), "hardware": hardware(), "arguments": vars(chosen), "groups": []}
    print(", ".join(f"{key} {value}" for key, value in (report["hardware"] | report["versions"]).items()))
    for name in names:
        report["groups"].append(measured(name, chosen))
        show(report["groups"][-1])
        if chosen.json:
            chosen.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return any("error" in result for result in report["groups"])


if __name__ == "__main__":
    raise SystemExit(main())
