"""Without the packages of the extras: what works, and the line that names the missing one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lebm.extras import EXTRAS, MissingExtraError, missing, need
from tests.cli.test_processes import command

BLOCK = f"""
import importlib.metadata, sys
HIDDEN = {sorted(EXTRAS)}
for name in HIDDEN:
    sys.modules[name] = None  # an import fails

def from_name(name, found=importlib.metadata.Distribution.from_name):
    if name.replace("-", "_") in HIDDEN:  # torchmetrics and Lightning ask for versions
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.Distribution.from_name = from_name
"""

METHOD = """
import numpy as np, torch
from lightning.pytorch import Trainer
import lebm.callbacks, lebm.checkpoint, lebm.density_ratio, lebm.estimators, lebm.evaluation, lebm.inference
import lebm.metrics, lebm.plots, lebm.samplers
from lebm.data import ArrayData
from tests.estimators.test_latent_mle import small_model
from lebm.metrics import InceptionFeatures
from lebm.metrics.features import FeaturesUnavailableError

model = small_model(seed=1)
x = model.sample(8)
print("sampled", tuple(x.shape))
data = ArrayData.of({"train": x.clamp(-1, 1)}, batch_size=4)
Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False).fit(model, data)
print("trained", model.global_step if hasattr(model, "global_step") else "")
try:
    InceptionFeatures().prepare()
except FeaturesUnavailableError as error:
    print(error)
"""

COMMANDS = """
from lebm.__main__ import main
for words in (
    ["fit", "-c", "tiny.yaml", "--trust", "tests", "--trainer.max_steps", "1"],
    ["fit", "-c", "tiny.yaml", "-c", "loggers/wandb", "--trust", "tests", "--run_dir", "other"],
    ["fit", "-c", "quickstart", "--run_dir", "quick", "--trainer.max_steps", "1"],
):
    print("status", main(words), flush=True)
"""


def blocked(code: str, cache: Path) -> tuple[str, str]:
    _, environment = command()
    words = [sys.executable, "-c", BLOCK + code]
    environment |= {"LEBM_CACHE": str(cache), "TORCH_HOME": str(cache)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_models_samplers_and_methods_need_no_extra(tmp_path: Path) -> None:
    out, _ = blocked(METHOD, tmp_path)
    assert "sampled (8" in out
    assert "trained" in out
    assert (
        "FID is left out: the Inception network needs torch_fidelity, which is not installed: pip install"
        ' "lebm[metrics]"'
    ) in out


@pytest.mark.slow
def test_each_missing_package_is_named_where_it_is_needed(tiny: Path) -> None:
    out, error = blocked(COMMANDS, tiny.parent / "cache")
    statuses = [line for line in out.splitlines() if line.startswith("status")]
    assert statuses[:3] == ["status 0", "status 2", "status 2"]
    lines = [line for line in error.splitlines() if "pip install" in line]
    assert lines == [
        "the log for TensorBoard beside metrics.csv needs tensorboard, which is not installed: pip install"
        ' "lebm[train]"',
        "lebm: error: trainer.logger: WandbLogger needs wandb, which is not installed: pip install"
        ' "lebm[wandb]"',
        "lebm: error: reading images, tables and the Hub needs datasets, which is not installed: pip"
        ' install "lebm[train]"',
    ]
    assert Path("runs/tiny/metrics.csv").is_file()
    assert not Path("runs/tiny/tensorboard").exists()
    assert not Path("other").exists()
    assert not Path("quick").exists()


def test_the_line() -> None:
    assert missing("datasets", "reading") == ""
    need("datasets", "reading")
    assert issubclass(MissingExtraError, ImportError)
