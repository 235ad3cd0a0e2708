"""What two processes say to each other in a training step, from a trace of torch's profiler."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.profiler import ProfilerActivity, profile, record_function

from lebm.samplers import Sampler
from tests.distributed import run_processes
from tests.reliability.methods import METHODS, model_of
from tests.reliability.test_exactness import data

STEP = 2
"""The step that is traced; in the first one DDP still arranges its buckets."""
POOL = {"allgather": 2}
COLLECTIVES = {
    "latent_mle": {"allreduce": 1, "broadcast": 3, **POOL},
    "multistage_nce": {"allreduce": 2, "broadcast": 3},
    "joint_hierarchical": {"allreduce": 1, "broadcast": 3},
    "joint_conditional": {"allreduce": 1, "broadcast": 2, **POOL},
    "dual_mcmc": {"allreduce": 1, "broadcast": 3},
    "dual_mcmc_alternate": {"allreduce": 2, "broadcast": 2, **POOL},
}
"""Per training step: one sum of gradients (per turn), one of a stage's sums, and DDP's buffers of rank 0.

A chain pool is gathered after the step, not inside a chain.
"""
Event = tuple[str, float, float]


class Trace(Callback):
    """Name, start and end of every event of one training step."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU])
        self.events: list[Event] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == STEP:
            self.profiler.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == STEP:
            self.profiler.stop()
            for event in self.profiler.events() or []:
                self.events.append((event.name, event.time_range.start, event.time_range.end))


def traced(folder: Path, method: str, bucket_mb: float) -> list[Event]:
    """Runs in every process."""
    plain, trace = Sampler.chain, Trace()

    def chain(*args: Any, **kwargs: Any) -> Any:
        with record_function("chain"):
            return plain(*args, **kwargs)

    trainer = Trainer(
        default_root_dir=folder,
        max_steps=STEP + 1,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(bucket_cap_mb=bucket_mb, static_graph=True),
        callbacks=[trace],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    with mock.patch.object(Sampler, "chain", chain):
        trainer.fit(model_of(method), data())
    return trace.events


def collectives(events: list[Event]) -> list[str]:
    return sorted(
        name.removeprefix("c10d::").rstrip("_") for name, _, _ in events if name.startswith("c10d::")
    )


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name == "latent_mle" else pytest.mark.slow) for name in METHODS]
)
def test_chains_are_silent_and_a_step_has_few_collectives(method: str, tmp_path: Path) -> None:
    for events in run_processes(traced, tmp_path, method, 25.0):
        chains = [(start, end) for name, start, end in events if name == "chain"]
        calls = [start for name, start, _ in events if name.startswith(("c10d::", "gloo:"))]
        assert chains
        assert not any(start <= call <= end for call in calls for start, end in chains)
        assert Counter(collectives(events)) == COLLECTIVES[method]


def test_gradients_are_summed_while_others_are_computed(tmp_path: Path) -> None:
    for events in run_processes(traced, tmp_path, "latent_mle", 0.001):
        sums = [start for name, start, _ in events if name == "c10d::allreduce_"]
        backward = [
            start for name, start, _ in events if name.startswith("autograd::engine::evaluate_function")
        ]
        assert min(sums) < max(backward)
