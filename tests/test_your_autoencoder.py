"""The page on an autoencoder of diffusers, as written: trained in one process, opened in another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your-autoencoder.md"


def test_the_page_works_in_an_empty_folder_in_at_most_25_lines(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    training, opening = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in (training + opening).splitlines() if line.strip()]) <= 25
    diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 4),
        latent_channels=1,
        norm_num_groups=2,
    ).save_pretrained(tmp_path / "my-vae")
    short = training.replace("max_epochs=4", "max_steps=3").replace("at=80, rows=8000", "at=2, rows=200")
    for script in (short, f"{opening}\nassert x.shape == (64, 1, 28, 28)"):
        ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "hold weights only" not in ended.stderr
