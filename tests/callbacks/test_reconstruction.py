"""Reconstruction error and picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.callbacks import EvaluationCallback, ReconstructionError, ReconstructionGrid
from lebm.data.images import to_unit_range
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


@pytest.mark.parametrize(("n", "shown"), [(3, 3), (16, 8)])  # the first batch has 8 images
def test_data_above_reconstructions_below(tmp_path: Path, n: int, shown: int) -> None:
    data = TinyData(batch_size=8)
    trainer(tmp_path, [ReconstructionGrid(n=n, columns=5)]).test(_Half(), datamodule=data, verbose=False)
    picture = np.asarray(Image.open(tmp_path / "images" / "reconstructions" / "test.png"))
    x = to_unit_range(data.test.images(slice(0, shown)))
    first = min(shown, 5)
    top = image_grid(torch.cat([x[:first], x[:first] / 2]), first)
    assert np.array_equal(picture[: top.shape[0]], top)
    if shown > 5:
        assert picture.shape[0] == 2 + 4 * 6  # two pairs of rows, the last one filled up with white
        assert np.array_equal(picture[12 + 2 : 12 + 6, 2:6, 0], image_grid(x[5:6])[..., 0])
        assert (picture[12:, -5:] == 255).all()


def test_a_callback_without_the_constructor_of_its_base_is_told(tmp_path: Path) -> None:
    class Hasty(EvaluationCallback):
        def __init__(self) -> None:
            self.seen = 0

    for run in ("test", "validate"):
        with pytest.raises(UserError, match=r"Hasty.__init__ must call super\(\).__init__\(\)"):
            getattr(trainer(tmp_path, [Hasty()]), run)(EchoModel(), datamodule=TinyData(), verbose=False)
