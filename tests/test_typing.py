"""What a type checker knows of ``lebm.load``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lebm
from lebm.errors import UserError
from lebm.estimators import LatentMLE, MultiStageNCE
from tests.callbacks.tiny import TinyData, latent_mle, trainer

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = """\
import torch
import lebm
from lebm.estimators import LatentMLE
model = lebm.load("run")
model.anomly_score(torch.zeros(1))
mine = lebm.load("run", LatentMLE)
reveal_type(mine)
mine.anomaly_score(torch.zeros(1))
"""


@pytest.mark.slow
def test_a_misspelt_method_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(CODE)
    words = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / "use.py")]
    shown = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert "use.py:5: error" in shown
    assert 'use.py:7: note: Revealed type is "lebm.estimators.latent_mle.LatentMLE"' in shown
    assert "Found 1 error" in shown


def test_the_expected_method_is_checked(tmp_path: Path) -> None:
    run = trainer(tmp_path, [], max_epochs=1)
    run.fit(latent_mle(), datamodule=TinyData())
    run.save_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(lebm.load(tmp_path / "model.ckpt", LatentMLE), LatentMLE)
    with pytest.raises(UserError, match="MultiStageNCE"):
        lebm.load(tmp_path / "model.ckpt", MultiStageNCE)
