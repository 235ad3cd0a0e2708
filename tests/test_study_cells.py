"""Functions behind two studies: scores of embeddings in closed form, and classes that are far apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_scores_of_embeddings_have_their_closed_forms() -> None:
    import embedding_cells

    z = np.random.default_rng(0).normal(size=(4000, 2)) * [1.0, 3.0]
    at = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 6.0]])
    exact = math.log(2 * math.pi * 3) + np.array([0.0, 2.0, 2.0])
    np.testing.assert_allclose(embedding_cells.mixture(z, 0)(at), exact, atol=0.2)
    line = np.arange(10.0)[:, None]
    far = embedding_cells.neighbours(line, 2)(np.array([[0.0], [-3.0]]))
    np.testing.assert_allclose(far, [0.5, 3.5])
    np.testing.assert_allclose(embedding_cells.unit(np.array([[3.0, 4.0]])), [[0.6, 0.8]])


def test_textures_have_two_colours_and_noise_has_none() -> None:
    import embedding_cells

    pictures, noise = embedding_cells.textures(6), embedding_cells.noise_pictures(6)
    assert pictures.shape == noise.shape == (6, 3, 32, 32)
    for picture, other in zip(pictures, noise, strict=True):
        for kind, flat in ((picture, True), (other, False)):
            points = kind.reshape(3, -1).T.astype(float)
            spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
            assert (spread[1] < 0.05 * spread[0]) == flat  # colours between two lie on a line
        assert len({picture.tobytes() for picture in pictures}) == 6


@pytest.mark.filterwarnings("ignore")
def test_every_way_names_classes_that_are_far_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import label_cells

    noise, rows = torch.Generator().manual_seed(0), {}
    centres = 8 * torch.eye(10)
    for split, count in (("train", 1000), ("test", 200)):
        labels = torch.arange(count) % 10
        rows[split] = centres[labels] + torch.randn(count, 10, generator=noise)
        rows[f"{split}_label"] = labels
    torch.save(rows, tmp_path / "codes.pt")
    monkeypatch.setattr(label_cells, "STEPS", 60)
    settings: dict[str, Any] = {"seed_everything": 0, "labels": 100}
    found = label_cells.few_labels(tmp_path / "run", settings, None)
    assert set(found) == {
        "logistic",
        "neighbour",
        "network",
        "components",
        "energy on mixture",
        "energy on normal",
    }
    assert all(value > 0.9 for name, (value, *_) in found.items() if name != "energy on mixture"), found
    for name in ("logistic", "neighbour"):
        assert found[name][0] == 1.0
