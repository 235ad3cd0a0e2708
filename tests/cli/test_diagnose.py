"""Long chains of a trained run, in words, figures and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.cli.diagnose import diagnose as main
from lebm.errors import UserError


def diagnose(*words: object) -> int:
    return main([*map(str, words), "--trust", "tests"]) or 0


@pytest.fixture
def pictures(tiny: Path) -> Path:
    folder = Path("pictures/test/digit")
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (4, 4), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    return Path("pictures")


def test_both_chains_are_reported(trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(trained, "--chains", 8, "--steps", 200, "--data", f"./{pictures}") == 0
    shown = capsys.readouterr().out
    assert "prior: " in shown
    assert "posterior: " in shown
    report = json.loads((trained / "diagnosis/diagnosis.json").read_text())
    assert report["prior"]["chains"] == 8
    assert report["posterior"]["chains"] == 8
    for part in report.values():
        assert part["findings"]
        assert part["transitions"] == 200
        assert part["split_rhat"] > 0.9
        assert len(part["log_density"]) == 101
        assert part["suggested_step_size"] > 0
    for name in ("prior", "posterior"):
        assert Image.open(trained / f"diagnosis/{name}.png").size[0] > 500


def test_a_broken_prior_is_not_called_healthy(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "checkpoints/last.ckpt"
    stored = torch.load(path, weights_only=True)
    for name, tensor in stored["state_dict"].items():
        if name.startswith("prior.tilt"):
            tensor.mul_(1e4)
    torch.save(stored, path)
    assert diagnose(trained, "--of", "prior", "--weights", "raw", "--chains", 8, "--steps", 100) == 0
    assert "prior: healthy" not in capsys.readouterr().out


def test_without_images_the_posterior_is_skipped(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(trained, "--chains", 8, "--steps", 20, "--out", "there") == 0
    assert (
        "ToyData is not a data module that can be opened again; name some with --data"
        in capsys.readouterr().out
    )
    assert sorted(path.name for path in Path("there").iterdir()) == ["diagnosis.json", "prior.png"]
    with pytest.raises(UserError, match="choose another --out or add --force"):
        diagnose(trained, "--out", "there")
    with pytest.raises(UserError, match="name some with --data"):
        diagnose(trained, "--of", "posterior")


def test_refusals(trained: Path) -> None:
    with pytest.raises(UserError, match="give at least --chains 4"):
        diagnose(trained, "--chains", 1)
