"""Checkpoints of every format and of every method load for good, and give the numbers they gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lebm
from lebm import checkpoint
from lebm.checkpoint.writing import AtomicCheckpointIO
from tests.estimators.test_latent_mle import small_model

FOLDER = Path(__file__).parents[1] / "checkpoints"
FILES = sorted(FOLDER.glob("format*.ckpt"))
METHODS = sorted(set(FOLDER.glob("*.ckpt")) - set(FILES))


def answers(file: Path) -> list[float]:
    model = lebm.load(file)
    z = torch.linspace(-1, 1, 2 * model.latent_dim).reshape(2, model.latent_dim)
    return [*model.log_joint(model.decode(z), z).double().tolist(), model.decode(z).double().sum().item()]


def answers_of_a_method(file: Path) -> dict[str, list[float] | float]:
    model = lebm.load(file)
    z = torch.linspace(-1, 1, 2 * model.latent_dim).reshape(2, model.latent_dim)
    x = model.decode(z)
    score = model.anomaly_score(x, generator=torch.Generator().manual_seed(0))
    sample = model.sample(2, generator=torch.Generator().manual_seed(0))
    return {
        "joint": model.log_joint(x, z).double().tolist(),
        "score": score.double().tolist(),
        "sample": sample.double().sum().item(),
    }


def make(folder: Path) -> None:
    """How the files were made, once for each new format."""
    model = small_model(seed=5)
    content = {
        "state_dict": model.state_dict(),
        "epoch": 2,
        "global_step": 7,
        "pytorch-lightning_version": "2.6.6",
    }
    model.on_save_checkpoint(content)
    torch.save(content, folder / "format1.ckpt")
    AtomicCheckpointIO().save_checkpoint(content, folder / "format2.ckpt")
    (folder / "expected.json").write_text(
        json.dumps({file.name: answers(file) for file in sorted(folder.glob("*.ckpt"))}, indent=1) + "\n"
    )


def test_there_is_a_file_of_every_format() -> None:
    found = [checkpoint.read(file)["lebm_format"] for file in FILES]
    assert sorted(found) == list(range(1, checkpoint.SEALED_FORMAT + 1))
    assert all(file.stat().st_size < 20_000 for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_loads_and_answers_as_it_did(file: Path) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())
    assert answers(file) == pytest.approx(expected[file.name], rel=1e-5)


@pytest.mark.parametrize("file", METHODS, ids=lambda file: file.stem)
def test_every_method_of_an_older_version_samples_and_scores_as_it_did(file: Path) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())[file.name]
    found = answers_of_a_method(file)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_every_method_has_a_file_of_its_own() -> None:
    classes = {checkpoint.read(file)["hyper_parameters"]["class_path"].rsplit(".", 1)[1] for file in METHODS}
    assert classes == {"LatentMLE", "MultiStageNCE", "JointHierarchicalPrior", "DualMCMCTeaching"}
    assert all(file.stat().st_size < 30_000 for file in METHODS)


def test_the_current_writer_writes_the_current_format(tmp_path: Path) -> None:
    make(tmp_path)
    assert [checkpoint.read(tmp_path / f"format{number}.ckpt")["lebm_format"] for number in (1, 2)] == [1, 2]
