"""The Fréchet distance of a model's samples to a whole split."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from lebm.callbacks import FrechetDistance
from lebm.data.images import to_unit_range
from lebm.errors import UserError
from lebm.metrics import FeatureExtractor, FeaturesUnavailableError, FlatFeatures
from lebm.samplers import Noise
from tests.callbacks.tiny import EchoModel, TinyData, trainer

NAME = "frechet_distance/pixels2"


class _Features(FlatFeatures):
    num_features = 4


def _expected(data: TinyData, split: str, model: EchoModel, counts: list[int]) -> float:
    real = to_unit_range(getattr(data, split).images())
    chunks = [model.sample(count, generator=Noise([(3, "fid", chunk)])) for chunk, count in enumerate(counts)]
    metric = FrechetInceptionDistance(feature=_Features(2)).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(torch.cat(chunks).detach().clamp(-1, 1), real=False)
    return float(metric.compute())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_equals_torchmetrics_over_the_whole_split(tmp_path: Path, split: str) -> None:
    data, model = TinyData(), EchoModel()
    callback = FrechetDistance(FlatFeatures(2), n_samples=25, split=split, chunk_size=10, seed=3)  # type: ignore[arg-type]
    results = trainer(tmp_path, [callback]).test(model, datamodule=data, verbose=False)
    expected = _expected(data, split, model, [10, 10, 5])
    assert callback.figures[f"test/{NAME}"] == pytest.approx(expected, rel=1e-5)
    assert results[0].keys() == {f"test/{NAME}"}
    assert callback.protocol["samples"] == 25
    assert (callback.protocol["seed"], callback.protocol["real_split"]) == (3, split)


def test_when_it_measures_in_training_and_real_statistics_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    whole = TinyData.evaluation_dataloader
    monkeypatch.setattr(
        TinyData,
        "evaluation_dataloader",
        lambda self, rows: passes.append(rows is self.train) or whole(self, rows),
    )
    callback = FrechetDistance(FlatFeatures(2), n_samples=20, chunk_size=10, seed=3, every_n_epochs=2)
    data, model = TinyData(), EchoModel()
    run = trainer(tmp_path, [callback], max_epochs=4)
    values = []
    callback_report = callback.report
    monkeypatch.setattr(
        callback, "report", lambda model, figures: values.append(figures) or callback_report(model, figures)
    )
    run.fit(model, datamodule=data)
    assert [list(figures) for figures in values] == [[f"val/{NAME}"]] * 2
    assert values[0] != values[1]  # the trained number moved
    assert sum(passes) == 1
    assert values[1][f"val/{NAME}"] == pytest.approx(_expected(data, "train", model, [10, 10]), rel=1e-5)
    trainer(tmp_path, [silent := FrechetDistance(FlatFeatures(2))], max_epochs=1).fit(
        EchoModel(), datamodule=data
    )
    assert silent.figures == {}


class _Unavailable(FeatureExtractor):
    figure = "fid"

    def prepare(self) -> None:
        raise FeaturesUnavailableError("FID is left out: no Inception weights")

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError


def test_missing_weights_are_one_line_and_no_figure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = FrechetDistance(_Unavailable(), n_samples=4, every_n_epochs=1)
    with caplog.at_level(logging.WARNING, logger="lebm"):
        run = trainer(tmp_path, [callback])
        run.fit(EchoModel(), datamodule=TinyData())
        assert run.test(EchoModel(), datamodule=TinyData(), verbose=False) == [{}]
    assert len([record for record in caplog.records if "FID is left out" in record.message]) == 1
    assert callback.figures == {}


def test_non_finite_samples_are_refused(tmp_path: Path) -> None:
    callback = FrechetDistance(FlatFeatures(2), n_samples=20, chunk_size=10)
    with pytest.raises(UserError, match="generated samples: 2 non-finite.*first at index 9"):
        trainer(tmp_path, [callback]).test(EchoModel(poison=10**6), datamodule=TinyData(), verbose=False)


def test_samples_of_another_size_are_refused(tmp_path: Path) -> None:
    class Larger(EchoModel):
        def sample(self, n: int, *, steps: int | None = None, generator: Any = None) -> Tensor:
            return super().sample(n, steps=steps, generator=generator).repeat(1, 1, 2, 2)

    class Seen(FlatFeatures):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2:] == (4, 4), "no feature of such a sample"
            return super().forward(x)

    callback = FrechetDistance(Seen(2), n_samples=20, chunk_size=10)
    message = r"samples images of shape \(1, 8, 8\), but the data have \(1, 4, 4\)"
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, [callback]).test(Larger(), datamodule=TinyData(), verbose=False)


def test_data_that_are_not_in_range_are_refused(tmp_path: Path) -> None:
    class Unscaled(TinyData):
        def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
            return {**batch, "x": batch["x"].float()}

    with pytest.raises(UserError, match=r"train data must be finite and in \[-1, 1\]"):
        trainer(tmp_path, [FrechetDistance(FlatFeatures(2), n_samples=4)]).test(
            EchoModel(), datamodule=Unscaled(), verbose=False
        )


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="n_samples"):
        FrechetDistance(n_samples=1)
    with pytest.raises(ValueError, match="split"):
        FrechetDistance(split="both")  # type: ignore[arg-type]
