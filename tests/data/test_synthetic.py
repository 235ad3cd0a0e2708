"""Points in the plane."""

from __future__ import annotations

import pytest
import torch

from lebm.data import PlaneData, plane_samples
from lebm.data.arrays import SHAPES
from lebm.errors import UserError


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_pure_functions_of_the_seed_and_stay_near_the_origin(shape):
    x, label = plane_samples(shape, 4000, seed=3)
    again, _ = plane_samples(shape, 4000, seed=3)
    other, _ = plane_samples(shape, 4000, seed=4)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert x.norm(dim=1).max() < 3.5
    assert x.mean(dim=0).norm() < 0.15
    counts = label.bincount()
    assert (counts.min() / counts.max()) > 0.7


def test_rings_have_their_radii():
    x, label = plane_samples("rings", 20_000)
    for ring, radius in ((0, 1.0), (1, 2.2)):
        distances = x[label == ring].norm(dim=1)
        assert distances.mean() == pytest.approx(radius, abs=0.01)
        assert distances.std() == pytest.approx(0.08, abs=0.004)


def test_batches_are_complete_and_splits_differ():
    data = PlaneData("moons", n_train=25, n_eval=7, batch_size=10, eval_batch_size=4)
    data.setup()
    train, test = list(data.train_dataloader()), list(data.test_dataloader())
    assert [len(batch["x"]) for batch in train] == [10, 10]
    assert torch.cat([batch["index"] for batch in test]).tolist() == list(range(7))
    assert not torch.equal(next(iter(data.val_dataloader()))["x"], test[0]["x"])
    assert data.describe_split()["sizes"] == {"train": 25, "validation": 7, "test": 7}


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="unknown shape 'cube'"):
        plane_samples("cube", 5)
    with pytest.raises(ValueError, match="at least 1"):
        PlaneData(n_train=0)
    few = PlaneData(n_train=10, batch_size=100)
    few.setup()
    with pytest.raises(UserError, match="batch_size 100 is larger than the 10 training rows"):
        few.train_dataloader()
