"""Speed of a Langevin chain against the published loop, two libraries, and the arithmetic it cannot do
without.

    python -m benchmarks.samplers                                   # all rows; minutes, and two for compiling
    python -m benchmarks.samplers --row prior-512 --rounds 15 --json samplers.json
    python -m benchmarks.samplers --device cuda

Rows: the prior chain (60 steps of 0.4, latent 100, energy 200-200-1) at batch 100, 512 and 4096, and the
posterior chain (steps of 0.1) through the SVHN generator at batch 100. Everyone gets the same energy, start,
step size and number of steps, and draws as many normals. Variants are interleaved in random order; ratios are
taken inside a round; printed are median and quartiles. ``over floor`` is time over that of the necessary
arithmetic (a forward pass and the backward pass to the input a step) at the rate of a large matrix product in
the same rounds.

The peers are used if they can be imported: ``pip install --no-deps torchebm==0.8.9 ebmkit==0.16.0``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import Potential, peers
from benchmarks.published import PublishedLoop, plain_energy, plain_generator
from benchmarks.timing import gemm_rate, interleave, machine, quartiles
from lebm.models import ConvGenerator, EnergyPrior, GaussianLikelihood, MLPEnergy
from lebm.samplers import Langevin, product

LATENT, GEMM, SIGMA = 100, 1536, 0.3
ROWS = {"prior-100": 100, "prior-512": 512, "prior-4096": 4096, "posterior-100": 100}


def networks(
    device: str, convolutional: bool
) -> tuple[EnergyPrior, GaussianLikelihood | None, PublishedLoop]:
    """Ours, and the published loop on copies of the same weights."""
    torch.manual_seed(0)
    prior = EnergyPrior(MLPEnergy(LATENT)).to(device)
    energy = plain_energy(LATENT).to(device)
    energy.load_state_dict(prior.tilt.net.state_dict(), strict=False)  # type: ignore[union-attr]  # the last bias has no effect
    if not convolutional:
        return prior, None, PublishedLoop(plain_generator(LATENT, [1, 28, 28], [2, 1]).to(device), energy)
    likelihood = GaussianLikelihood(ConvGenerator(LATENT, [3, 32, 32], [512, 256, 128]), SIGMA).to(device)
    generator = plain_generator(LATENT, [3, 32, 32], [512, 256, 128]).to(device)
    for mine, theirs in zip(likelihood.parameters(), generator.parameters(), strict=True):
        theirs.data.copy_(mine.data.reshape(theirs.shape))
    return prior, likelihood, PublishedLoop(generator, energy, SIGMA)


def prior_row(batch: int, device: str, mode: str | None) -> tuple[dict[str, Callable[[], Tensor]], float]:
    """Variants and the floating-point operations of their chain."""
    prior, _, published = networks(device, convolutional=False)
    start = torch.randn(batch, LATENT, device=device)
    published.prior = (60, 0.4)
    eager, compiled = Langevin(60, 0.4), Langevin(60, 0.4, compile=True, compile_mode=mode)
    return {
        "published": lambda: published.sample_prior(start[:, :, None, None]).flatten(1),
        "eager": lambda: eager(prior.target(), start),
        "compiled": lambda: compiled(prior.target(), start),
        **peers(Potential(prior.target(), prior), 0.4, 60, start),
    }, 60 * flops_a_step(start, published.energy)


def posterior_row(
    batch: int, device: str, mode: str | None, steps: int = 4
) -> tuple[dict[str, Callable[[], Tensor]], float]:
    prior, likelihood, published = networks(device, convolutional=True)
    assert likelihood is not None
    start = torch.randn(batch, LATENT, device=device)
    x = likelihood.sample(torch.randn_like(start)).detach()
    log_density = product(lambda z: likelihood.log_prob(x, z), prior.target())
    published.posterior = (steps, 0.1)
    eager, compiled = Langevin(steps, 0.1), Langevin(steps, 0.1, compile=True, unroll=1, compile_mode=mode)
    return {
        "published": lambda: published.sample_posterior(start[:, :, None, None], x).flatten(1),
        "eager": lambda: eager(log_density, start),
        "compiled": lambda: compiled(log_density, start),
        **peers(Potential(log_density, prior, likelihood), 0.1, steps, start),
    }, steps * (
        flops_a_step(start, published.energy) + flops_a_step(start[:, :, None, None], published.generator)
    )


def flops_a_step(start: Tensor, *modules: nn.Module) -> float:
    """Of one forward pass through the plain networks and the backward pass to the state alone, which costs as
    much again.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for module in modules:
            module(start)
    return 2 * counter.get_total_flops()


def check_agreement(variants: dict[str, Callable[[], Tensor]]) -> None:
    """All variants must sample the same thing: mean squares of the ends within five standard errors of the
    first one's.
    """
    figures = {}
    for name, variant in variants.items():
        squares = torch.cat([variant().square().mean(dim=1) for _ in range(2)]).double()
        figures[name] = squares.mean().item(), squares.std().item() / math.sqrt(len(squares))
    middle, error = figures["published"]
    for name, (mean, spread) in figures.items():
        if abs(mean - middle) > 5 * math.hypot(error, spread):
            raise SystemExit(
                f"{name} does not sample the same chain: mean square {mean:.4f}, published {middle:.4f} +-"
                f" {error:.4f}"
            )


def measure(row: str, rounds: int, device: str, mode: str | None) -> dict:
    make = prior_row if row.startswith("prior") else posterior_row
    variants, flops = make(ROWS[row], device, mode)
    check_agreement(variants)
    product_of_matrices = gemm_rate(device, size=GEMM)
    timings = interleave({**variants, "gemm": product_of_matrices}, rounds, warm_up=2)
    floors = [flops / (2 * GEMM**3) * seconds for seconds in timings.seconds["gemm"]]
    result: dict = {
        "row": row,
        "gflop": flops / 1e9,
        "published_seconds": timings.median("published"),
        "variants": {},
    }
    for name in variants:
        over = [seconds / floor for seconds, floor in zip(timings.seconds[name], floors, strict=True)]
        ratio = dict(zip(("low", "median", "high"), timings.ratio(name, "published"), strict=True))
        result["variants"][name] = {**ratio, "over_floor": quartiles(over)[1]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", choices=list(ROWS), action="append")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--compile-mode", help="default: 'reduce-overhead' (CUDA graphs) on a GPU, none on a CPU"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mode = options.compile_mode or ("reduce-overhead" if options.device.startswith("cuda") else None)
    print(machine())
    report: dict = {"machine": machine(), "device": options.device, "compile_mode": mode, "rows": []}
    print(
        f"{'row':15}{'published s':>12}  times as fast as the published loop, median (quartiles); [over"
        " floor]"
    )
    for row in options.row or list(ROWS):
        result = measure(row, options.rounds, options.device, mode)
        report["rows"].append(result)
        cells = "  ".join(
            f"{name} {v['median']:.2f} ({v['low']:.2f}-{v['high']:.2f}) [{v['over_floor']:.1f}]"
            for name, v in result["variants"].items()
        )
        print(f"{row:15}{result['published_seconds']:>12.4f}  {cells}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
