"""Recipes, overlays and flags merged into one mapping, and the place that a message names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.config.recipes import location, merged
from lebm.config.request import read_request

BASE = """\
latent_dim: 4
data: {class_path: ImageData, init_args: {path: here, batch_size: 5}}
model:
  class_path: LatentMLE
  init_args:
    prior_sampler: {class_path: Langevin, init_args: {steps: "${latent_dim}", step_size: 0.1, unroll: 3}}
    optimizer: {lr: {generator: 1.0, energy: 2.0}}
trainer: {callbacks: [SampleGrid], max_epochs: 2}
"""
SAMPLER = "model.init_args.prior_sampler"
LR = "model.init_args.optimizer.lr"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["--latent_dim", "7"], "latent_dim", "7"),
        (["--data.batch_size=9"], "data.init_args", {"path": "here", "batch_size": "9"}),
        (["--data.init_args", "{path: there}"], "data.init_args", {"path": "there", "batch_size": 5}),
        (["--trainer", "{max_steps: 3}"], "trainer.max_epochs", 2),
        (["--trainer.max_epochs", "-1"], "trainer.max_epochs", "-1"),
        (["--trainer.callbacks", "null"], "trainer.callbacks", None),
        (["--trainer.callbacks+=LatentPicture"], "trainer.callbacks", ["SampleGrid", "LatentPicture"]),
        (["--trainer.callbacks+", "[A, B]"], "trainer.callbacks", ["SampleGrid", "A", "B"]),
        (
            ["--trainer.callbacks.n", "3"],
            "trainer.callbacks",
            [{"class_path": "SampleGrid", "init_args": {"n": "3"}}],
        ),
        ([f"--{LR}.energy", "3"], LR, {"generator": 1.0, "energy": "3"}),
        ([f"--{LR}", "{energy: 3}"], LR, {"energy": 3}),  # a flag replaces a table
        (
            ["--model.init_args.optimizer.init_args.lr", "{energy: 3}"],
            "model.init_args.optimizer",
            {"init_args": {"lr": {"energy": 3}}},
        ),
        # a class that changes keeps the arguments that both classes have
        (
            [f"--{SAMPLER}", "MALA"],
            SAMPLER,
            {"class_path": "MALA", "init_args": {"steps": "${latent_dim}", "step_size": 0.1}},
        ),
        (
            [f"--{SAMPLER}", "{class_path: MALA, init_args: {steps: 1}}"],
            f"{SAMPLER}.init_args",
            {"steps": 1, "step_size": 0.1},
        ),
        ([f"--{SAMPLER}", "lebm.samplers.Langevin"], f"{SAMPLER}.init_args.unroll", 3),
        ([f"--{SAMPLER}", "null"], SAMPLER, None),
    ],
)
def test_flags(base: Path, words: list[str], key: str, expected: Any) -> None:
    content, _ = merged(read_request("fit", ["-c", str(base), *words]).settings)
    assert at(content, key) == expected


def test_an_overlay_changes_single_entries(base: Path) -> None:
    over = base.with_name("over.yaml")
    change = {"optimizer": {"lr": {"energy": 3.0}}, "prior_sampler": {"init_args": {"steps": 9}}}
    over.write_text(yaml.safe_dump({"model": {"init_args": change}}))
    content, _ = merged(read_request("fit", ["-c", str(base), "-c", str(over)]).settings)
    assert at(content, LR) == {"generator": 1.0, "energy": 3.0}
    assert at(content, SAMPLER)["init_args"] == {"steps": 9, "step_size": 0.1, "unroll": 3}


def test_the_last_file_with_the_key_is_named(base: Path) -> None:
    over = base.with_name("over.yaml")
    over.write_text("trainer:\n  max_epochs: 3\n")
    settings = read_request("fit", ["-c", str(base), "-c", str(over), "--data.path", "x"]).settings
    assert location(["trainer", "max_epochs"], settings) == f"{over}:2: trainer.max_epochs: "
    assert location(["model", "init_args.prior_sampler.steps"], settings) == (
        f"{base}:6: model.prior_sampler.steps: "
    )
    assert location(["data", "path"], settings) == "data.path: "
