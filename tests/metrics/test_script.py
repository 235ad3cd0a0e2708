"""Features from a TorchScript file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from lebm.errors import UserError
from lebm.metrics import ScriptFeatures


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten())
    path = tmp_path / "mine.pt"
    torch.jit.save(torch.jit.script(network), path)
    return path


def test_it_is_the_network_in_evaluation_mode_under_its_own_name(file: Path) -> None:
    features = ScriptFeatures(str(file))
    x = torch.randn(5, 1, 4, 4)
    whole = features(x)
    assert whole.shape == (5, 27)
    torch.testing.assert_close(
        torch.cat([features(x[:2]), features(x[2:])]), whole
    )  # batch statistics would differ
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert features.figure == f"frechet_distance/mine-{digest[:8]}"
    assert digest.startswith(features.digest)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt: No such file"):
        ScriptFeatures(str(tmp_path / "absent.pt")).prepare()
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(UserError, match=r"text\.pt: not a TorchScript file"):
        ScriptFeatures(str(tmp_path / "text.pt")).prepare()
