"""No chain and no training step makes the host wait for the accelerator, but for the events that are named.

Where there is a GPU, the same is asked of it, and torch's own alarm is on as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lebm.estimators import LatentModel, MultiStageNCE
from lebm.models import CategoricalLikelihood, EnergyPrior, MLPEnergy, SentenceEncoder
from lebm.models.text_likelihood import UNKNOWN
from lebm.samplers import HMC, MALA, Langevin, Noise, ParallelTempering, Sampler, SamplingImportanceResampling
from tests.device.accelerator import Traffic, watched
from tests.estimators import test_text_runs as sentences
from tests.reliability.methods import KINDS, METHODS, SHAPE, model_of
from tests.samplers.test_contract import EVENT, MAKERS, ROWS, Target

NUMBERS = ("on host", "samplers.base.on_device")
"""Settings that change along a chain are a few numbers, which an asynchronous copy brings to the device."""

SAMPLERS = {
    "annealed": {NUMBERS: 1},  # one in ten steps, for the noise scales of these steps
    "ParallelTempering": {NUMBERS: 1},  # the temperatures, once per chain
    "Masked": {("on host", "samplers.targets._chain"): 1},  # the mask: its indices are made on the host
}
"""What a chain of 12 steps may do, where it is not nothing."""

REMEMBERED = {("read", "inference.chains._store"): 1}
"""Once per training step, the largest row number: the memory grows with the rows, and has no other bound."""

PURPOSES = {
    "latent_mle": 2,
    "multistage_nce": 2,
    "joint_hierarchical": 2,
    "joint_conditional": 2,
    "dual_mcmc": 3,
    "dual_mcmc_alternate": 3,
}
"""Purposes for which a training step draws noise."""

WORDS = {("select", "models.text_likelihood._words"): 2}
"""Twice per training step, the positions that hold a word: the vocabulary's matrix is not multiplied for the
padding. The chain's steps use the positions that were found for its target.
"""


def accelerator(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "meta"


@contextmanager
def watching(where: str, allowed: object) -> Iterator[Traffic]:
    """Torch's own alarm stops at the first event, so it is on where no event is allowed."""
    alarm = where == "cuda" and not allowed
    before = torch.cuda.get_sync_debug_mode() if alarm else 0
    with watched(where) as traffic:
        if alarm:
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield traffic
        finally:
            if alarm:
                torch.cuda.set_sync_debug_mode(before)


def images(where: str) -> dict[str, Tensor]:
    return {"x": torch.zeros(8, *SHAPE, device=where), "index": torch.arange(8, device=where)}


def second_step(model: LatentModel, batch: dict[str, Tensor], where: str, allowed: object) -> Counter:
    """The events of the second training step; the first one may make buffers."""
    model.to(where)
    groups = [{"name": name, "params": list(part.parameters())} for name, part in model.networks().items()]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    for step in range(2):
        with watching(where, allowed if step else {"anything": 1}) as traffic, model.noting():
            model.loss(batch, step).backward()
            model.optimizer_settings.clip(optimizer, 1.0)
    return traffic.found


# Chains


@pytest.mark.parametrize("name", MAKERS)
def test_a_chain_waits_for_nothing(name: str, device: torch.device) -> None:
    where, allowed = accelerator(device), SAMPLERS.get(name, {})
    target, sampler, init = (
        Target().to(where),
        MAKERS[name]().to(where),
        torch.zeros(ROWS, *EVENT, device=where),
    )
    with watching(where, allowed) as traffic:
        _, info = sampler.run(target, init, Noise.shards("chain", shards=4))
        scalars = info.scalars()
    assert traffic.found == allowed
    assert {value.device.type for value in scalars.values()} == {where}


# Training steps


@pytest.mark.parametrize("name", [*METHODS, *KINDS])
def test_a_training_step_waits_for_nothing(name: str, device: torch.device) -> None:
    where = accelerator(device)
    allowed = REMEMBERED if name.endswith("Remembered") else {}
    assert second_step(model_of(name), images(where), where, allowed) == allowed


@pytest.mark.parametrize("finished", [0, 1])
def test_a_stage_reads_its_sums_at_the_end_of_a_window(finished: int, device: torch.device) -> None:
    """Once per window of the stage rule (50 steps by default), and three kinds of sum in one copy."""
    where = accelerator(device)
    model = model_of("multistage_nce").to(where)
    assert isinstance(model, MultiStageNCE)
    if finished:
        model.prior.tilt.switch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    found = []
    for step in range(4):
        with watching(where, {"anything": 1}) as traffic:
            model.loss(images(where), step).backward()
            if step < 3:  # with the fourth step the stage is over
                model.after_step(optimizer)
        found.append(traffic.found)
    assert found == [{}, {("to host", "estimators.stages._measure"): 1}, {}, {}]


@pytest.mark.parametrize(
    "method",
    ["transformer", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "gru", "stages"))],
)
def test_sentences_wait_for_their_words_alone(method: str, device: torch.device) -> None:
    where = accelerator(device)
    model = sentences.model(method, dropout=0.3)
    assert isinstance(model.likelihood, CategoricalLikelihood)
    x = torch.full((8, sentences.LONGEST), UNKNOWN, device=where)
    batch = {"x": x, "index": torch.arange(8, device=where)}
    assert second_step(model, batch, where, WORDS) == WORDS


def test_the_encoder_of_sentences_needs_their_lengths_on_the_host() -> None:
    """Torch packs sequences by lengths on the host, and brings their order back to the device."""
    encoder = SentenceEncoder(3, 20, 6, 4, 5).to("meta")
    with watched() as traffic:
        encoder(torch.ones(2, 6, dtype=torch.long, device="meta"))
    here = "models.encoders.features"
    assert traffic.found == {("to host", here): 1, ("mix", here): 1, ("to device", here): 1}


# The watch itself


class Leaky(Sampler):
    """A chain that does one forbidden thing."""

    def __init__(self, deed: Callable[[Tensor], object]) -> None:
        super().__init__(steps=1)
        self.deed = deed

    def _chain(self, log_density, start, generator, steps, want_info):
        self.deed(start)
        return start, None


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (lambda z: z.sum().item(), "read"),
        (lambda z: z.tolist(), "to host"),
        (lambda z: float(z.sum()), "read"),
        (lambda z: bool((z > 0).all()), "read"),
        (lambda z: (z > 0).nonzero(), "select"),
        (lambda z: z.cpu(), "to host"),
        (lambda z: z.to("cpu", non_blocking=True), "to host"),
        (lambda z: torch.zeros(z.shape).copy_(z), "to host"),
        (lambda z: z.copy_(torch.zeros(z.shape)), "to device"),
        (lambda z: torch.ones(()).to(z.device), "to device"),
        (lambda z: torch.tensor([1.0, 2.0], device=z.device), "to device"),
        (lambda z: torch.zeros(3), "on host"),
        (lambda z: torch.tensor([1.0, 2.0]), "on host"),
        (lambda z: torch.arange(4), "on host"),
    ],
)
def test_the_watch_sees_what_it_should(
    deed: Callable[[Tensor], object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.device.accelerator.PACKAGE", Path(__file__).parent)
    with watched() as traffic:
        Leaky(deed)(Target().to("meta"), torch.zeros(2, 3, device="meta"))
    assert kind in {found for found, _ in traffic.found}


@pytest.mark.parametrize("select", [lambda z: z[z > 0], lambda z: torch.masked_select(z, z > 0)])
def test_a_mask_that_selects_rows_stops_the_watch(select: Callable[[Tensor], Tensor]) -> None:
    with watched(), pytest.raises(NotImplementedError, match="without values"):
        Leaky(select)(Target().to("meta"), torch.zeros(2, 3, device="meta"))


def test_the_watch_leaves_nothing_behind() -> None:
    plain = torch.Generator, torch.is_autocast_enabled
    with watched():
        assert torch.Generator is not plain[0]
    assert (torch.Generator, torch.is_autocast_enabled) == plain
    assert torch.equal(*(torch.randn(3, generator=torch.Generator().manual_seed(0)) for _ in range(2)))


# How many kernels a step costs

MOVES: dict[str, Callable[[int], Sampler]] = {
    "Langevin": lambda steps: Langevin(steps, 0.3),
    "MALA": lambda steps: MALA(steps, 0.3),
    "HMC": lambda steps: HMC(steps, 0.3, leapfrog_steps=3),
    "ParallelTempering": lambda steps: ParallelTempering(MALA(1, 0.3), [1.0, 2.0, 4.0], steps),
    "SamplingImportanceResampling": lambda steps: SamplingImportanceResampling(8, steps),
}
COSTS = {
    "Langevin": (0.8, 20.1),
    "MALA": (16, 86),
    "HMC": (24, 142),
    "ParallelTempering": (24, 251),
    "SamplingImportanceResampling": (16, 128),
}
"""Kernels that make random numbers, and all kernels, per transition."""


def per_step(
    make: Callable[[int], Sampler], target: Callable[[Tensor], Tensor], dim: int, steps: int
) -> dict[str, float]:
    """Operations on the device per transition, from chains of ``steps`` and twice as many."""
    counts = []
    for length in (steps, 2 * steps):
        with watched() as traffic:
            make(length)(target, torch.zeros(8, dim, device="meta"), Noise.shards(0, "chain"))
        assert traffic.generators == 8  # one per noise shard, made once per chain
        counts.append(traffic.kernels)
    long, short = counts[1], counts[0]
    return {name: (long[name] - short[name]) / steps for name in long if long[name] != short[name]}


ENERGY = {"addmm": 2.0, "gelu": 2.0, "mm": 4.0, "ones_like": 1.0, "gelu_backward": 2.0}
NOISE = {"randn": 0.8, "cat": 0.1, "clone": 0.1, "mul": 0.1}


def test_kernels_of_a_langevin_step() -> None:
    """On the energy of the papers: its gradient, the noise of eight shards for ten steps, and the step."""
    prior = EnergyPrior(MLPEnergy(100, hidden=[200, 200])).to("meta")
    kernels = per_step(lambda steps: Langevin(steps, 0.4), prior.target(), 100, steps=10)
    assert kernels == ENERGY | NOISE | {"add": 2.0, "sub": 1.0, "neg": 1.0}


@pytest.mark.parametrize("name", COSTS)
def test_kernels_of_a_transition(name: str) -> None:
    kernels = per_step(MOVES[name], Target().to("meta"), 6, steps=10 if name == "Langevin" else 2)
    draws = kernels.get("randn", 0) + kernels.get("rand", 0)
    assert (draws, sum(kernels.values())) == pytest.approx(COSTS[name])


def test_kernels_of_a_draw() -> None:
    """Eight noise shards."""
    noise, counts = Noise.shards(0, "chain"), []
    for _ in range(2):
        with watched() as traffic:
            noise.normal((100, 100), steps=10, device="meta")
        counts.append((traffic.generators, sum(traffic.kernels.values())))
    assert (counts[0][0], counts[1]) == (8, (0, 9))
