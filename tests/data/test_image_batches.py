"""Batches of images: scaled, flipped, shared by processes, and read by every verb of the trainer."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch

from lebm.data.images import ImageData
from lebm.errors import UserError
from tests.conftest import MakeParquet
from tests.data.test_images import ready
from tests.data.test_resume import Learner, quiet_trainer


def processes(data: ImageData, rank: int, world_size: int) -> ImageData:
    """Let the data module believe it is one of several processes."""
    device = types.SimpleNamespace(root_device=torch.device("cpu"))
    loop = types.SimpleNamespace(batch_idx=-1)
    data.trainer = types.SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world_size,
        strategy=device,
        training=True,
        current_epoch=0,
        overfit_batches=0.0,
        fit_loop=loop,
    )
    return data


def test_batches_are_scaled_and_flipped_on_the_device(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=40, test=6, channels=3))
    data = ready(path=path, batch_size=10, flip=True)
    raw = next(iter(data.train_dataloader()))
    assert raw["x"].dtype == torch.uint8
    assert set(raw) == {"x", "label", "index"}
    plain = data.on_after_batch_transfer(raw, 0)["x"]
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain, raw["x"].double().mul(2 / 255).sub(1).float(), rtol=0, atol=1e-6)
    extremes = data.on_after_batch_transfer({"x": torch.tensor([0, 255], dtype=torch.uint8)}, 0)["x"]
    assert extremes.tolist() == [-1.0, 1.0]

    flipped = processes(data, 0, 1).on_after_batch_transfer(raw, 0)["x"]
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    same = (flipped == plain).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert mirrored.any()
    assert same.any()
    half = {name: value[5:] for name, value in raw.items()}
    assert torch.equal(data.on_after_batch_transfer(half, 0)["x"], flipped[5:])
    data.trainer.training = False  # type: ignore[misc,union-attr]
    assert torch.equal(data.on_after_batch_transfer(raw, 0)["x"], plain)


def test_the_last_smaller_batch_is_left_out_or_kept(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=43, test=2))
    sizes = {}
    for drop_last in (True, False):
        data = ready(path=path, batch_size=10, drop_last=drop_last)
        sizes[drop_last] = [len(batch["x"]) for batch in data.train_dataloader()]
        assert len(data.train_dataloader()) == len(sizes[drop_last])
        assert data.state_dict()["drop_last"] is drop_last
    assert sizes == {True: [10] * 4, False: [10] * 4 + [3]}


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_global_batches(make_parquet: MakeParquet, world_size: int) -> None:
    path = str(make_parquet(train=40, test=27))
    single = ready(path=path, batch_size=8, eval_batch_size=8)
    ranks = [
        processes(ready(path=path, batch_size=8, eval_batch_size=8), rank, world_size)
        for rank in range(world_size)
    ]
    for batches in zip(single.train_dataloader(), *(rank.train_dataloader() for rank in ranks), strict=True):
        whole, *parts = batches
        for name in whole:
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
    seen = [
        torch.cat([batch["index"] for batch in batches])
        for batches in zip(*(rank.test_dataloader() for rank in ranks), strict=True)
    ]
    assert torch.cat(seen).tolist() == list(range(27))


def test_sharing_that_cannot_be_even(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=40, test=2))
    data = processes(ready(path=path, batch_size=10), 0, 4)
    with pytest.raises(
        UserError, match="batch_size 10 is over all processes, and must be a multiple of their number, 4"
    ):
        data.train_dataloader()
    with pytest.raises(UserError, match="2 images cannot be evaluated by 4 processes"):
        data.test_dataloader()
    with pytest.raises(UserError, match="batch_size 41 is larger than the 40 training images"):
        ready(path=path, batch_size=41).train_dataloader()


@pytest.mark.filterwarnings("ignore:Total length of `list`")
@pytest.mark.parametrize("validation_size", [0, 3])
def test_every_verb_of_the_trainer(make_parquet: MakeParquet, tmp_path: Path, validation_size: int) -> None:
    data = ImageData(
        str(make_parquet(train=20, test=5)), batch_size=4, eval_batch_size=2, validation_size=validation_size
    )
    learner = Learner()
    learner.test_step = learner.validation_step  # type: ignore[method-assign]
    learner.predict_step = lambda batch, batch_idx: batch["x"]  # type: ignore[method-assign]
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(learner, datamodule=data)
    assert len(learner.seen) == (20 - validation_size) // 4
    assert learner.validated == list(range(validation_size))
    learner.validated = []
    trainer.test(learner, datamodule=data)
    assert learner.validated == [0, 1, 2, 3, 4]
    predictions = trainer.predict(learner, datamodule=data)
    assert predictions is not None
    x = torch.cat(predictions)  # type: ignore[arg-type]
    assert x.shape == (5, 1, 8, 8)
    assert x.abs().max() <= 1
