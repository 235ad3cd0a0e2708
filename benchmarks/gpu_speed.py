"""The part of ``benchmarks.gpu`` that times chains and training steps beside other implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch

from benchmarks.gpu_task import Task
from benchmarks.peers import Potential, peers
from benchmarks.published import PublishedLoop
from benchmarks.samplers import networks
from benchmarks.step_time import LATENT, SIZES, our_model, our_step, plain_nets
from benchmarks.timing import interleave
from lebm.samplers import Langevin

BATCHES = (512, 100, 4096)
PRECISIONS = ("fp32", "tf32", "bf16-mixed")
MODES = {"eager": (False, None), "compiled": (True, None), "reduce-overhead": (True, "reduce-overhead")}
SIZE = "28-64"

Variants = dict[str, Callable[[], object]]


def speed(task: Task) -> list[dict[str, Any]]:
    """One row per batch, precision and kind of work; rows that there was no time for are left out."""
    batches, precisions = ((8,), ("fp32", "bf16-mixed")) if task.dry else (BATCHES, PRECISIONS)
    modes = {"eager": MODES["eager"]} if task.dry else MODES  # compiling takes a minute of a CPU
    late, rows = task.deadline(), []
    for batch, precision, kind in product(batches, precisions, ("prior chain", "training step")):
        if late(0.9) and not task.dry:
            break
        if kind == "prior chain":
            variants = prior_chain(batch, task.device, modes)
        else:
            variants = training_step(batch, task.device, modes, "28-16" if task.dry else SIZE)
        with products_in(precision):
            row = timed(in_precision(variants, precision, task.device), 1 if task.dry else 9, task.device)
        rows.append({"work": kind, "batch": batch, "precision": precision, **row})
        task.save(rows)
    return rows


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Products of matrices and convolutions without TF32 for ``fp32``, and with it for the others."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def in_precision(variants: Variants, precision: str, device: str) -> Variants:
    """The variants under ``torch.autocast`` for ``bf16-mixed``.

    Each call enters it anew: inside it, weights that were converted once are not converted again.
    """
    if precision != "bf16-mixed":
        return variants

    def mixed(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.autocast(device, torch.bfloat16):
                return work()

        return call

    return {name: mixed(work) for name, work in variants.items()}


def prior_chain(batch: int, device: str, modes: dict[str, tuple[bool, str | None]]) -> Variants:
    """60 steps on the prior, ours and the published ones, and those of the libraries that are installed."""
    prior, _, published = networks(device, convolutional=False)
    start = torch.randn(batch, LATENT, device=device)
    variants: Variants = {"published": lambda: published.sample_prior(start[:, :, None, None])}
    for name, (compiled, mode) in modes.items():
        sampler = Langevin(60, 0.4, compile=compiled, compile_mode=mode)
        variants[name] = lambda sampler=sampler: sampler(prior.target(), start)  # type: ignore[misc]
    return {**variants, **peers(Potential(prior.target(), prior), 0.4, 60, start)}


def training_step(batch: int, device: str, modes: dict[str, tuple[bool, str | None]], size: str) -> Variants:
    """A step of ``LatentMLE`` with the 28 px network: 60 prior steps, 20 posterior steps, both updates."""
    x = torch.rand(batch, *SIZES[size]["out_shape"], device=device) * 2 - 1
    generator, energy = (network.to(device) for network in plain_nets(size))
    published = PublishedLoop(generator, energy)
    variants: Variants = {"published": lambda: published.step(x, LATENT)}
    for name, (compiled, mode) in modes.items():
        model = our_model(size, compiled).to(device)
        for sampler in (model.prior_sampler, model.posterior_sampler):
            assert isinstance(sampler, Langevin)
            sampler.compile_mode = mode
        variants[name] = our_step(model, x)
    return variants


def timed(variants: Variants, rounds: int, device: str) -> dict[str, Any]:
    """Medians, ratios to the published loop with quartiles, and kernels; an error line where one fails."""
    errors = {}
    for name in list(variants):
        try:
            variants[name]()  # compiles
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
            del variants[name]
    timings = interleave(variants, rounds, warm_up=2 if rounds > 1 else 0)
    found: dict[str, Any] = {}
    for name in variants:
        low, middle, high = timings.ratio(name, "published")
        found[name] = {"seconds": timings.median(name), "kernels": launched(variants[name], device)}
        found[name]["times_as_fast"] = {"low": low, "median": middle, "high": high}
    return {"variants": found, "errors": errors}


def launched(work: Callable[[], object], device: str) -> int:
    """Kernels that a call starts on the GPU; on the CPU the number of torch's operations."""
    kind = "CUDA" if device == "cuda" else "CPU"
    activity = getattr(torch.profiler.ProfilerActivity, kind)
    with torch.profiler.profile(activities=[activity]) as profile:
        work()
        if device == "cuda":
            torch.cuda.synchronize()
    seen = [event for event in profile.events() or [] if event.device_type.name == kind]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in seen)
