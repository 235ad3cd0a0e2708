"""Reconstruction error and picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import EvaluationCallback, ReconstructionError, ReconstructionGrid
from lebm.data.images import to_unit_range
from lebm.data.splits import spread_rows
from lebm.errors import UserError
from lebm.plots import image_grid
from tests.callbacks.tiny import EchoModel, TinyData, trainer


class _Half(EchoModel):
    """Gives back half of every pixel."""

    def test_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        return {**self.validation_step(batch, batch_idx), "reconstruction": batch["x"] / 2}


def test_mean_over_all_pixels_in_the_symmetric_range(tmp_path: Path) -> None:
    data, callback = TinyData(batch_size=4), ReconstructionError()  # 23 rows: the last batch has 3
    results = trainer(tmp_path, [callback]).test(_Half(), datamodule=data, verbose=False)
    normal = data.test.anomaly  # the held-out label's samples do not count
    assert normal.any()
    x = to_unit_range(data.test.images()).double()[~torch.as_tensor(normal)]
    expected = float((x / 2).square().mean())
    assert callback.figures["test/reconstruction_mse"] == pytest.approx(expected, rel=1e-6)
    assert results[0]["test/reconstruction_mse"] == pytest.approx(expected, rel=1e-6)


def test_validation_is_a_figure_of_its_own_and_passes_do_not_mix(tmp_path: Path) -> None:
    callback = ReconstructionError()
    run = trainer(tmp_path, [callback], max_epochs=1)
    run.fit(EchoModel(), datamodule=TinyData())
    assert callback.figures == {"val/reconstruction_mse": pytest.approx((0.1 + 4 * 0.01) ** 2, rel=1e-5)}
    assert float(run.callback_metrics["val/reconstruction_mse"]) == pytest.approx(0.14**2, rel=1e-5)
    run.test(EchoModel(), datamodule=TinyData(), verbose=False)
    assert callback.figures["test/reconstruction_mse"] == pytest.approx(0.1**2, rel=1e-5)


def test_non_finite_reconstructions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test reconstructions: 1 non-finite.*first at index 6"):
        trainer(tmp_path, [ReconstructionError()]).test(
            EchoModel(poison=6), datamodule=TinyData(), verbose=False
        )


def test_a_model_that_returns_no_reconstruction(tmp_path: Path) -> None:
    class Silent(EchoModel):
        def test_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
            return None

    with pytest.raises(UserError, match="ReconstructionError needs .* 'x'"):
        trainer(tmp_path, [ReconstructionError()]).test(Silent(), datamodule=TinyData(), verbose=False)


@pytest.mark.parametrize(("n", "shown"), [(3, 3), (16, 16), (40, 23)])  # the split has 23 images
def test_data_above_reconstructions_below(tmp_path: Path, n: int, shown: int) -> None:
    data = TinyData(batch_size=8)
    trainer(tmp_path, [ReconstructionGrid(n=n, columns=5)]).test(_Half(), datamodule=data, verbose=False)
    picture = np.asarray(Image.open(tmp_path / "images" / "reconstructions" / "test.png"))
    rows = spread_rows(data.test.labels.numpy(), len(data.test), n, seed=0)
    assert data.test.labels[rows[:3]].tolist() == [0, 1, 2]
    assert len(rows) == shown
    x = to_unit_range(data.test.images(rows))
    first = min(shown, 5)
    top = image_grid(torch.cat([x[:first], x[:first] / 2]), first)
    assert np.array_equal(picture[: top.shape[0]], top)
    assert picture.shape[0] == 2 + -(-shown // 5) * 2 * 6
    if shown > 5:  # below come the next row of data and its reconstructions
        assert np.array_equal(picture[12 + 2 : 12 + 6, 2:6, 0], image_grid(x[5:6])[..., 0])
    if shown == 23:
        assert (picture[-12:, -5:] == 255).all()  # the last row is filled up with white


def test_the_choice_is_of_the_rows_that_a_limited_pass_sees(tmp_path: Path) -> None:
    run = trainer(tmp_path, [ReconstructionGrid(n=5)], limit_test_batches=1)
    data = TinyData(batch_size=8)
    run.test(_Half(), datamodule=data, verbose=False)
    picture = np.asarray(Image.open(tmp_path / "images" / "reconstructions" / "test.png"))
    rows = spread_rows(data.test.labels[:8].numpy(), 8, 5, seed=0)
    assert np.array_equal(picture[2:6, 2:6, 0], image_grid(to_unit_range(data.test.images(rows[:1])))[..., 0])
    assert picture.shape[1] == 2 + 5 * 6


def test_a_loader_of_unknown_data_shows_its_first_batch(tmp_path: Path) -> None:
    data = TinyData(batch_size=8)
    batch = {**data.test.__getitems__(range(8)), "x": to_unit_range(data.test.images(slice(0, 8)))}

    class Loader:
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            return iter([batch])

    run = trainer(tmp_path, [ReconstructionGrid(n=5)])
    run.test(_Half(), dataloaders=Loader(), verbose=False)
    picture = np.asarray(Image.open(tmp_path / "images" / "reconstructions" / "test.png"))
    assert np.array_equal(picture[2:6, 2:6, 0], image_grid(batch["x"][:1])[..., 0])


def test_a_callback_needs_no_constructor_of_its_base(tmp_path: Path) -> None:
    class Hasty(EvaluationCallback):
        def __init__(self) -> None:
            self.seen = 0

        def finish(self, trainer: Any, model: Any, stage: str) -> None:
            self.report(model, {f"{stage}/seen": 1.0})

    callback = Hasty()
    trainer(tmp_path, [callback]).test(EchoModel(), datamodule=TinyData(), verbose=False)
    assert callback.figures == {"test/seen": 1.0}
    assert callback.protocol == Hasty().figures == {}
