"""Time of a draw of noise from counters beside torch's generators, on this machine.

    python -m benchmarks.noise

Ten steps of a chain on 100 rows: the noise of eight shards (training) and of one stream per row (evaluation).
Variants are interleaved; medians and quartiles of their ratio."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.timing import interleave, machine
from lebm.samplers import CounterNoise, Noise

ROWS, STEPS = 100, 10


def draw(source: type[Noise], per_row: bool, dim: int) -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    index = torch.arange(ROWS, device=device)
    noise = source.samples("row", index=index) if per_row else source.shards("shard")
    return noise.normal((ROWS, dim), steps=STEPS, device=device)


if __name__ == "__main__":
    print(machine())
    print("| streams | numbers per row | generators, ms | counters, ms | counters over generators |")
    print("|---|---|---|---|---|")
    for per_row in (False, True):
        for dim in (10, 100, 3072):
            variants = {
                source.__name__: partial(draw, source, per_row, dim) for source in (Noise, CounterNoise)
            }
            timings = interleave(variants, rounds=15)
            low, middle, high = timings.ratio("Noise", "CounterNoise")
            generators, counters = (1000 * timings.median(name) for name in ("Noise", "CounterNoise"))
            name = "one per row" if per_row else "eight shards"
            print(
                f"| {name} | {dim} | {generators:.2f} | {counters:.2f} |"
                f" {middle:.1f} ({low:.1f} to {high:.1f}) |"
            )
