"""Tokens a second of a training step of LatentMLE on sentences, against a plain PyTorch loop of the same
model.

    python -m benchmarks.text                                      # minutes
    python -m benchmarks.text --row small --rounds 7 --json text.json
    python -m benchmarks.text --device cuda

A step is the posterior chain, the prior chain, the loss and one Adam step, without a Trainer. The plain loop
calls the LSTM and one cross-entropy over all positions, the padded ones ignored, at every step of the chain,
draws its noise there, and takes the gradients of likelihood and prior together. Batches have sentences of one
length (``by_length: true`` comes close to that) or of lengths from 1 to the longest (``by_length: false``).
Tokens are the words and ends of a batch, without padding. Variants are interleaved; ratios are taken inside a
round; printed are median and quartiles."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.timing import interleave, machine
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import CategoricalLikelihood, EnergyPrior, MLPEnergy, RecurrentGenerator
from lebm.models.sequence_generators import NEVER_WRITTEN
from lebm.models.text_likelihood import PAD, START
from lebm.samplers import Langevin

LATENT, PRIOR, RATES = 32, (40, 0.5), {"generator": 1e-3, "energy": 1e-4}


@dataclass(frozen=True)
class Size:
    """Networks and batch of a row."""

    embedding: int
    hidden: int
    words: int
    longest: int
    batch: int
    posterior: int


ROWS = {"small": Size(128, 128, 2000, 20, 32, 8), "paper": Size(128, 512, 10000, 40, 64, 20)}


def estimator(size: Size, device: str) -> LatentMLE:
    torch.manual_seed(0)
    generator = RecurrentGenerator(LATENT, size.words, size.longest, size.embedding, size.hidden)
    prior = EnergyPrior(MLPEnergy(LATENT, [200, 200]))
    chains = Langevin(*PRIOR), Langevin(size.posterior, 0.5)
    return LatentMLE(CategoricalLikelihood(generator), prior, *chains, AdamGroups(RATES)).to(device)


def plain_log_prob(model: LatentMLE, x: Tensor, z: Tensor) -> Tensor:
    """The same density, without lebm's likelihood."""
    network = model.likelihood.generator
    told = torch.cat([torch.full_like(x[:, :1], START), x[:, :-1]], dim=1)
    inputs = torch.cat([network.embedding(told), z.unsqueeze(1).expand(-1, x.shape[1], -1)], dim=2)
    hidden = network.start(z).unsqueeze(0)
    seen, _ = network.recurrent(inputs, (hidden, torch.zeros_like(hidden)))
    logits = network.output(seen)
    surprise = cross_entropy(
        logits.flatten(0, 1), x.flatten() - NEVER_WRITTEN, ignore_index=PAD - NEVER_WRITTEN, reduction="none"
    )
    return -surprise.view(x.shape).sum(dim=1)


def plain_chain(log_density: Callable[[Tensor], Tensor], steps: int, size: float, start: Tensor) -> Tensor:
    z = start
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(log_density(z).sum(), z)
        z = z + 0.5 * size**2 * gradient + size * torch.randn_like(z)
    return z.detach()


def plain_step(model: LatentMLE, x: Tensor, optimizers: list[torch.optim.Optimizer], posterior: int) -> None:
    def log_prior(z: Tensor) -> Tensor:
        return -model.prior.tilt(z) - 0.5 * z.square().sum(dim=1)

    positives, negatives = (torch.randn(len(x), LATENT, device=x.device) for _ in range(2))
    positives = plain_chain(lambda z: plain_log_prob(model, x, z) + log_prior(z), posterior, 0.5, positives)
    negatives = plain_chain(log_prior, *PRIOR, negatives)
    for optimizer in optimizers:
        optimizer.zero_grad()
    (-plain_log_prob(model, x, positives).mean()).backward()
    (model.prior.tilt(positives).mean() - model.prior.tilt(negatives).mean()).backward()
    for optimizer in optimizers:
        optimizer.step()


def batches(size: Size, ragged: bool, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, size.words, (size.batch, size.longest), generator=generator)
    lengths = (
        torch.randint(1, size.longest + 1, (size.batch, 1), generator=generator) if ragged else size.longest
    )
    return torch.where(torch.arange(size.longest) < lengths, x, PAD).to(device)


def measure(row: str, ragged: bool, rounds: int, device: str) -> dict:
    size = ROWS[row]
    ours, theirs = estimator(size, device), estimator(size, device)
    x = batches(size, ragged, device)
    z = torch.randn(size.batch, LATENT, device=device)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.likelihood.log_prob(x, z), plain_log_prob(theirs, x, z), rtol=1e-4, atol=1e-3
        )
    (optimizer, _), batch = (
        ours.optimizer_settings.build(ours.networks(), fused=True),
        {"x": x, "index": torch.arange(size.batch)},
    )
    plain_optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(network.parameters(), RATES[name], betas=(0.5, 0.999))
        for name, network in theirs.networks().items()
    ]

    def our_step() -> None:
        optimizer.zero_grad()
        ours.loss(batch, 0).backward()
        optimizer.step()

    timings = interleave(
        {"lebm": our_step, "plain": lambda: plain_step(theirs, x, plain_optimizers, size.posterior)},
        rounds,
        warm_up=1,
    )
    tokens = int((x != PAD).sum())
    low, middle, high = timings.ratio("lebm", "plain")
    rates = {name: tokens / timings.median(name) for name in timings.seconds}
    return {
        "row": row,
        "ragged": ragged,
        "tokens": tokens,
        "tokens_a_second": rates,
        "times_as_fast": [low, middle, high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", choices=list(ROWS), action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    report: dict = {"machine": machine(), "device": options.device, "rows": []}
    print(
        f"{'row':8}{'lengths':10}{'lebm tokens/s':>14}{'plain tokens/s':>15}   times as fast as the plain"
        " loop, median (quartiles)"
    )
    for row in options.row or list(ROWS):
        for ragged in (False, True):
            found = measure(row, ragged, options.rounds, options.device)
            report["rows"].append(found)
            rates, (low, middle, high) = found["tokens_a_second"], found["times_as_fast"]
            lengths = "mixed" if ragged else "equal"
            print(
                f"{row:8}{lengths:10}{rates['lebm']:>14.0f}{rates['plain']:>15.0f}   {middle:.2f}"
                f" ({low:.2f}-{high:.2f})",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
