"""Samples that go on from the prior chains that training left in its pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lebm import load
from lebm.errors import UserError
from lebm.estimators import PriorModel
from lebm.evaluation.chains import has_pool, pool_latents
from lebm.samplers import Noise
from tests.cli.conftest import Run

POOL = ["--model.init_args.prior_sampler", "PersistentChains"]
SETTINGS = "--model.init_args.prior_sampler.init_args"


@pytest.fixture
def pooled(lebm: Run, tiny: Path) -> Path:
    kernel = [f"{SETTINGS}.kernel", "Langevin", f"{SETTINGS}.kernel.init_args.steps", "2"]
    kernel += [f"{SETTINGS}.kernel.init_args.step_size", "0.4", f"{SETTINGS}.fresh_steps", "7"]
    words = [*POOL, *kernel, "--run_dir", "pooled", "--trainer.max_steps", "3"]
    assert lebm("fit", "-c", tiny, *words) == 0
    return Path("pooled")


def test_samples_go_on_from_the_pool(lebm: Run, pooled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for start in ("fresh", "pool"):
        words = ["-n", "6", "--start", start, "--format", "npy", "--out", f"{start}.npy"]
        assert lebm("sample", pooled, *words) == 0
    said = capsys.readouterr().out
    assert "(chain of 7 steps, " in said
    assert "(from the pool of prior chains, " in said
    fresh, pool = np.load("fresh.npy"), np.load("pool.npy")
    assert pool.shape == fresh.shape == (6, 1, 4, 4)
    assert not np.array_equal(fresh, pool)
    model = load(pooled)
    noise = Noise.samples(model.seed, "sample", index=range(6))
    again = model.observe(pool_latents(model, 6, noise), generator=noise)
    assert np.array_equal(again.numpy(), pool)


def test_latents_of_the_pool_are_its_rows_moved_by_the_kernel(pooled: Path) -> None:
    model = load(pooled)
    assert isinstance(model, PriorModel)
    chains = model.prior_sampler
    start = chains.pooled(5, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    chains.pooled(5, generator)  # the same rows; the chain uses what is left of the stream
    expected = chains.kernel(model.prior.target(), start, generator)
    assert torch.equal(pool_latents(model, 5, torch.Generator().manual_seed(1)), expected)
    assert has_pool(model)


def test_a_model_without_a_pool_says_so(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("fit", "-c", tiny, "--run_dir", "plain", "--trainer.max_steps", "1") == 0
    capsys.readouterr()
    assert lebm("sample", "plain", "--start", "pool") == 2
    assert capsys.readouterr().err == (
        "lebm: error: prior_sampler has no pool of chains: train with PersistentChains\n"
    )
    assert lebm("sample", "plain", "--start", "pool", "--steps", "3") == 2
    assert "--start pool runs no chain; leave out --class and --steps" in capsys.readouterr().err


def test_an_empty_pool_is_named(pooled: Path) -> None:
    model = load(pooled)
    fresh = type(model)(**model._init_arguments)
    fresh.prior_sampler._own = fresh.prior_sampler._whole = None
    with pytest.raises(UserError, match="no pool of chains"):
        pool_latents(fresh, 2)
