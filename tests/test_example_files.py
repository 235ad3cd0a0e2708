"""The files in examples/ run as they are, in seconds, and show what they say."""

from __future__ import annotations

import ast
import re
import runpy
import time
from pathlib import Path

import lightning.pytorch  # noqa: F401  (imports are no part of an example's time)
import pytest

import lebm.estimators  # noqa: F401

EXAMPLES = Path(__file__).parents[1] / "examples"
METHODS = {"latent_mle", "multistage_nce", "joint_hierarchical", "dual_mcmc"}
CPU_SECONDS = 20  # each takes at most 8 on a quiet machine


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> str:
        start = time.process_time()
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        assert time.process_time() - start < CPU_SECONDS
        return capsys.readouterr().out

    return run


def number(pattern: str, text: str) -> float:
    return float(re.search(pattern, text)[1])


def test_there_is_one_example_per_method_and_they_are_short():
    assert {file.stem for file in EXAMPLES.glob("*.py")} == METHODS | {"no_lightning"}
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 80, file.name
        assert ".yaml" not in file.read_text(), f"{file.name} needs a recipe"


@pytest.mark.filterwarnings("ignore")
def test_latent_mle(run):
    printed = run("latent_mle")
    assert len(re.findall(r"-?\d+", re.search(r"log p\(x, z\) \[(.*)\]", printed)[1])) == 8
    assert 0 < number(r"reconstruction MSE ([\d.]+)", printed) < 0.3  # a black image has about .8
    assert Path("latent_mle.png").stat().st_size > 1000


@pytest.mark.filterwarnings("ignore")
def test_multistage_nce(run):
    printed = run("multistage_nce")
    before, after = (number(rf"MMD of {name}: ([\d.]+)", printed) for name in (r"N\(0, I\)", "the prior"))
    assert after < 0.8 * before
    values = re.search(r"nats: \[(.*)\]", printed)[1].split(", ")
    assert all(-6 < float(value) < 0 for value in values)


@pytest.mark.filterwarnings("ignore")
def test_joint_hierarchical(run):
    printed = run("joint_hierarchical")
    assert "layers, bottom first: [2, 2, 2]" in printed
    assert Path("joint_hierarchical.png").stat().st_size > 1000


@pytest.mark.filterwarnings("ignore")
def test_dual_mcmc(run):
    printed = run("dual_mcmc")
    proposed, revised = (
        number(rf"energy of {name} images: (-?[\d.]+)", printed) for name in ("proposed", "revised")
    )
    assert revised < proposed  # the chain goes down the energy
    assert number(r"change of a pixel: ([\d.]+)", printed) > 0.001
    assert Path("dual_mcmc.png").stat().st_size > 1000


def test_no_lightning(run):
    """The rooms that it imports are free of Lightning: tests/test_house.py."""
    tree = ast.parse((EXAMPLES / "no_lightning.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"__future__", "torch", "lebm.density_ratio", "lebm.models", "lebm.samplers"}
    printed = run("no_lightning")
    data, draws = (re.search(rf"deviations of {name}: \[(.*), (.*)\]", printed) for name in ("data", "draws"))
    for one, other in zip(data.groups(), draws.groups(), strict=True):
        assert abs(float(one) - float(other)) < 0.15
    assert 0.2 < number(r"about ([\d.]+) nats", printed) < 1.0
