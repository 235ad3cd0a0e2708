"""Time of a training step against the published loops, and what Lightning adds to it.

    python -m benchmarks.step_time                       # all sizes, several minutes each
    python -m benchmarks.step_time --size 28-64 --rounds 9 --json step_time.json
    python -m benchmarks.step_time --method dual_mcmc    # its table only

Same networks, shapes and numbers of steps; variants interleaved; ratios inside a round; median and quartiles.
``floor`` is the arithmetic a step cannot do without (forward and input gradient a chain step, forward and
both gradients for the update) at the rate a large matrix product reached in the same rounds."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import dual_mcmc
from benchmarks.published import PublishedLoop, plain_energy, plain_generator, same_size
from benchmarks.timing import gemm_rate, interleave, machine, quartiles
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import ConvGenerator, EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import Langevin

SIZES = {
    "28-16": {"out_shape": [1, 28, 28], "channels": [32, 16], "start": 7},
    "28-64": {"out_shape": [1, 28, 28], "channels": [128, 64], "start": 7},
    "32-64": {"out_shape": [3, 32, 32], "channels": [512, 256, 128], "start": 4},
}
LATENT, BATCH, GEMM = 100, 100, 1536


def plain_nets(size: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    return plain_generator(LATENT, SIZES[size]["out_shape"], SIZES[size]["channels"]), plain_energy(LATENT)


def our_model(size: str, compiled: bool) -> LatentMLE:
    torch.manual_seed(0)
    return LatentMLE(
        GaussianLikelihood(ConvGenerator(LATENT, **SIZES[size]), 0.3),
        EnergyPrior(MLPEnergy(LATENT)),
        Langevin(60, 0.4, compile=compiled),
        Langevin(20, 0.1, compile=compiled, unroll=1),
        AdamGroups({"generator": 1e-4, "energy": 2e-5}),
    )


def our_step(model: LatentMLE, x: torch.Tensor, parts: dict[str, list[float]] | None = None):
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    batch, counter = {"x": x}, iter(range(10**9))

    def step() -> None:
        number = next(counter)
        optimizer.zero_grad()
        model.loss(batch, number).backward()
        optimizer.step()

    return step


def necessary_flops(size: str) -> float:
    """Of one training step: 2 forwards' worth a chain step, 3 for the update; the energy's own share
    likewise.
    """
    generator, energy = plain_nets(size)

    def forward(module: torch.nn.Module, shape: tuple[int, ...]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.zeros(shape))
        return counter.get_total_flops()

    of_generator, of_energy = forward(generator, (BATCH, LATENT, 1, 1)), forward(energy, (BATCH, LATENT))
    return 20 * 2 * (of_generator + of_energy) + 60 * 2 * of_energy + 3 * of_generator + 3 * 2 * of_energy


def measure(size: str, rounds: int) -> dict:
    x = torch.rand(BATCH, *SIZES[size]["out_shape"]) * 2 - 1
    generator, energy = plain_nets(size)
    published, ours = PublishedLoop(generator, energy), our_model(size, False)
    same_size(ours.likelihood, generator)
    variants = {
        "published": lambda: published.step(x, LATENT),
        "eager": our_step(ours, x),
        "compiled": our_step(our_model(size, True), x),
        "gemm": gemm_rate(size=GEMM),
    }
    timings = interleave(variants, rounds, warm_up=2)
    flops = necessary_flops(size)
    floors = [flops / (2 * GEMM**3) * seconds for seconds in timings.seconds["gemm"]]
    result = {"size": size, "gflop_a_step": flops / 1e9, "published_seconds": timings.median("published")}
    for name in ("eager", "compiled"):
        result[name] = dict(zip(("low", "median", "high"), timings.ratio(name, "published"), strict=True))
        over = [seconds / floor for seconds, floor in zip(timings.seconds[name], floors, strict=True)]
        result[f"{name}_over_floor"] = quartiles(over)[1]
    return result


class _Same(Dataset):
    def __init__(self, x: torch.Tensor, batches: int) -> None:
        self.x, self.batches = x, batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"x": self.x}


class _Clock(Callback):
    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        self.starts.append(time.perf_counter())


def lightning_overhead(rounds: int, batches: int = 200) -> dict[str, float]:
    """Milliseconds a step that the Trainer adds, on a model small enough to show them."""

    def tiny() -> LatentMLE:
        generator = MLPGenerator(4, [16], hidden=[16], output="linear")
        networks = GaussianLikelihood(generator), EnergyPrior(MLPEnergy(4, hidden=[16]))
        return LatentMLE(
            *networks, Langevin(2, 0.4), Langevin(2, 0.1), AdamGroups({"generator": 1e-4, "energy": 2e-5})
        )

    x, added = torch.rand(BATCH, 16), []
    for _ in range(rounds):
        step = our_step(tiny(), x)
        bare = []
        for _ in range(batches):
            start = time.perf_counter()
            step()
            bare.append(time.perf_counter() - start)
        clock = _Clock()
        settings = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[clock], **settings)
        trainer.fit(tiny(), DataLoader(_Same(x, batches), batch_size=None))
        gaps = [b - a for a, b in zip(clock.starts[:-1], clock.starts[1:], strict=True)]
        added.append(1e3 * (statistics.median(gaps) - statistics.median(bare)))
    return {"added_ms_a_step": statistics.median(added), "low": min(added), "high": max(added)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), action="append")
    parser.add_argument(
        "--method", choices=("latent_mle", "dual_mcmc"), action="append", help="both if not given"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    report: dict = {"machine": machine()}
    methods = options.method or ["latent_mle", "dual_mcmc"]
    if "latent_mle" in methods:
        latent_mle(options, report)
    if "dual_mcmc" in methods:
        print(dual_mcmc.HEAD)
        report["dual_mcmc"] = [dual_mcmc.measure(size, options.rounds) for size in dual_mcmc.SIZES]
        print("\n".join(map(dual_mcmc.show, report["dual_mcmc"])))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def latent_mle(options: argparse.Namespace, report: dict) -> None:
    """The table of LatentMLE at every size, and what the Trainer adds."""
    report["latent_mle"] = []
    print(
        f"{'size':8}{'GFLOP':>8}{'published s':>13}{'eager':>22}{'compiled':>22}"
        f"{'over floor: eager':>20}{'compiled':>10}"
    )
    for size in options.size or list(SIZES):
        row = measure(size, options.rounds)
        report["latent_mle"].append(row)
        cells = "".join(
            f"{row[n]['median']:>9.2f} ({row[n]['low']:.2f}-{row[n]['high']:.2f})"
            for n in ("eager", "compiled")
        )
        over = f"{row['eager_over_floor']:>20.1f}{row['compiled_over_floor']:>10.1f}"
        print(
            f"{size:8}{row['gflop_a_step']:>8.1f}{row['published_seconds']:>13.3f}{cells}{over}", flush=True
        )
    overhead = lightning_overhead(max(3, options.rounds // 3))
    report["lightning"] = overhead
    print(
        f"Lightning adds {overhead['added_ms_a_step']:.2f} ms a step ({overhead['low']:.2f} to"
        f" {overhead['high']:.2f})"
    )
    biggest = report["latent_mle"][-1]
    share = overhead["added_ms_a_step"] / 1e3 / (biggest["published_seconds"] / biggest["compiled"]["median"])
    report["lightning"]["share_of_largest_step"] = share
    print(f"that is {100 * share:.2f} % of a compiled step at {biggest['size']}")


if __name__ == "__main__":
    main()
