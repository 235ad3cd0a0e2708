"""The revision suite and ``lebm sample --steps``, on a small trained model of digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lebm.__main__ import main
from lebm.data import ImageData
from lebm.errors import UserError
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.evaluation import image
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import RunImages
from lebm.evaluation.image import revision_suite
from lebm.metrics import FeaturesUnavailableError, FlatFeatures, frechet_distance
from lebm.models import GaussianLikelihood, MLPEncoder, MLPGenerator, ResNetEnergy
from lebm.samplers import Langevin
from tests.callbacks.tiny import latent_mle

SHAPE = [1, 28, 28]


def model() -> DualMCMCTeaching:
    torch.manual_seed(0)
    return DualMCMCTeaching(
        ResNetEnergy(SHAPE, [4, 4]),
        GaussianLikelihood(MLPGenerator(4, SHAPE, hidden=[16]), 0.3),
        MLPEncoder(4, SHAPE, hidden=[16]),
        Langevin(2, 0.05),
        Langevin(5, 0.05),
        AdamGroups({"energy": 1e-3, "generator": 1e-2, "encoder": 1e-3}),
        temperature=1e-3,
        seed=2,
    )


def embedded(limit: int) -> RunImages:
    data = ImageData("embedded:mnist", image_size=SHAPE[1], channels=SHAPE[0], limit_eval=limit)
    data.foreign = True
    return RunImages.of(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after a few steps."""
    folder = tmp_path_factory.mktemp("revision")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(default_root_dir=folder, accelerator="cpu", max_steps=20, limit_val_batches=0, **quiet)
    trainer.fit(model(), ImageData("embedded:mnist", batch_size=50, limit_train=1000, limit_eval=60))
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def test_the_suite_scores_networks_and_revisions_apart(run: Path) -> None:
    estimator = DualMCMCTeaching.load_from_checkpoint(run).eval()
    images = embedded(60)
    settings = Settings(n_samples=100, real_split="test", extractor=FlatFeatures(2), seed=2, batch_size=40)
    result = revision_suite(Subject(estimator, images), settings)
    figures = {figure.name: figure for figure in result.figures}
    x = images.test.images(slice(0, 60)).float() / 127.5 - 1
    for steps in (0, 5):
        noise = estimator.sample_noise("encode", torch.arange(60))
        error = (estimator.reconstruct(x, steps=steps, generator=noise) - x).square().mean()
        assert figures[f"mse/steps{steps}"].value == pytest.approx(float(error), rel=1e-4)
        assert figures[f"mse/steps{steps}"].n == 60
        assert {f"psnr/steps{steps}", f"ssim/steps{steps}"} <= set(figures)
    name = FlatFeatures(2).figure
    gain, before, after = (figures[f"{name}/{kind}"] for kind in ("gain", "generator", "revised"))
    assert gain.value == pytest.approx(before.value - after.value)
    assert gain.high - gain.low < before.high - before.low, "both kinds come from the same latents"
    assert result.protocol["image_steps"] == {"generator": 0, "revised": 2}
    real, drawn = FlatFeatures(2)(x).double(), []
    with torch.no_grad():
        from lebm.evaluation.chains import sample_chunks

        drawn = [
            FlatFeatures(2)(
                next(sample_chunks(estimator, 100, 2 + 1000 * number, (1, 28, 28), steps=0))[1]
            ).double()
            for number in range(5)
        ]
    by_hand = [
        float(frechet_distance(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())) for fake in drawn
    ]
    assert before.value == pytest.approx(float(np.mean(by_hand)), rel=1e-6)


class _Unavailable(FlatFeatures):
    def prepare(self) -> None:
        raise FeaturesUnavailableError("no weights")


def test_without_features_reconstructions_are_kept() -> None:
    images = embedded(10)
    settings = Settings(n_samples=2, extractor=_Unavailable(), batch_size=10)
    result = revision_suite(Subject(model().eval(), images), settings)
    assert result.skipped == "without distances: no weights"
    assert {figure.name for figure in result.figures} == {
        f"{name}/steps{steps}" for name in ("mse", "psnr", "ssim") for steps in (0, 5)
    }


def test_too_few_samples_or_images_are_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image, "_reconstructions", None)
    for n_samples, images in ((19, 30), (100, 19)):
        subject = Subject(model().eval(), embedded(images))
        with pytest.raises(
            UserError,
            match=f"at least 20 samples .* --n-samples {n_samples} and the {images} of the test split",
        ):
            revision_suite(
                subject, Settings(n_samples=n_samples, real_split="test", extractor=FlatFeatures(2))
            )


def test_a_method_without_an_image_chain_is_passed_over() -> None:
    images = embedded(10)
    assert "no image chain" in revision_suite(Subject(latent_mle(), images), Settings()).skipped


def test_samples_of_the_generator_and_of_the_energy(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(name: str, *words: str) -> np.ndarray:
        assert main(["sample", str(run), "-n", "6", "--out", str(tmp_path / f"{name}.npy"), *words]) == 0
        return np.load(tmp_path / f"{name}.npy")

    generator, ebm, longer = (draw("a", "--steps", "0"), draw("b"), draw("c", "--steps", "9"))
    told = capsys.readouterr().out
    assert "a.npy (seed 2" in told
    assert "chain of 2 steps" in told
    assert "chain of 9 steps" in told
    # both chains start at the generator's images: a step of 0.05 moves each pixel by about that
    assert 0.03 < (ebm - generator).std() < 0.3
    assert (longer - generator).std() > (ebm - generator).std()


def test_the_command_writes_the_suite(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    words = [
        "--data",
        "embedded:mnist",
        "--suite",
        "revision",
        "--n-samples",
        "20",
        "--limit",
        "20",
        "--features",
        "pixels",
    ]
    assert main(["evaluate", str(run), *words, "--real-split", "test", "--out", str(out)]) == 0
    figures = {figure["name"] for figure in json.loads(out.read_text())["suites"]["revision"]["figures"]}
    assert {"mse/steps0", "mse/steps5"} <= figures
