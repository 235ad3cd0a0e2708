"""A recipe of each method under mixed precision, with its callbacks: training, validation and test."""

from __future__ import annotations

from pathlib import Path

import pytest

from lebm.cli.dispatch import run
from tests.recipes.test_recipes import synthetic, two_steps

CHAINS = {
    "latent_mle/mnist": [],
    "multistage_nce/mnist": [],
    "joint_hierarchical/mnist": ["prior"],
    "dual_mcmc/mnist": ["image", "posterior"],
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_phase_in_bf16(name: str, tmp_path: Path) -> None:
    words = ["-c", name, *synthetic(name, tmp_path / "data"), "--trainer.precision=bf16-mixed"]
    two_steps(words, tmp_path / "run", CHAINS[name])
    assert "val/" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert run(["test", str(tmp_path / "run")]) == 0
