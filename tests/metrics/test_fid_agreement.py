"""Our FID path, torchmetrics and torch-fidelity's command agree on the same images and network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as published
from torchmetrics.image.fid import FrechetInceptionDistance

from lebm.callbacks import FrechetDistance
from lebm.data import ImageData
from lebm.metrics import FrechetDistance as FrechetMetric
from lebm.metrics import InceptionFeatures

SIZE = 24


def pictures(n: int, seed: int, tint: float) -> np.ndarray:
    """``(n, 24, 24, 3)`` of ``uint8``: smooth colour fields with some noise, so that averaged features differ
    between images.
    """
    noise = np.random.default_rng(seed)
    slope = noise.normal(size=(n, 2, 3)) * 60
    axis = np.linspace(-1, 1, SIZE)
    field = (
        slope[:, 0, None, None] * axis[None, :, None, None]
        + slope[:, 1, None, None] * axis[None, None, :, None]
    )
    level = 110 + tint * 20 + noise.normal(size=(n, 1, 1, 3)) * 35
    return (
        (level + field + noise.normal(size=(n, SIZE, SIZE, 3)) * 12 * (1 + tint))
        .clip(0, 255)
        .astype(np.uint8)
    )


def write_folder(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the format of the published weights: random, with activations of about unit variance at every
    layer.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *args, **kwargs: None)
        torch.manual_seed(0)
        network = published.FeatureExtractorInceptionV3("random", ["64", "2048"])
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch that follows
    sample = torch.from_numpy(pictures(16, 9, 0.5)).permute(0, 3, 1, 2)
    with torch.no_grad():
        network(sample[:4])
        network.eval()
        network.features_list = ["64"]
        (early,) = network(sample)
        # The 64 features are means over a layer's positions: its scale, which a ReLU lets through, gives them
        # unit variance.
        scale = 1 / early.std(dim=0).mean()
        network.Conv2d_2b_3x3.bn.weight.mul_(scale)
        network.Conv2d_2b_3x3.bn.bias.mul_(scale)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


class Album(LightningModule):
    """'Draws' the given images one after the other, in [-1, 1]."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.shown = 0
        self.chain_settings: dict[str, Any] = {}

    def sample(self, n: int, *, steps: int | None = None, generator: Any = None) -> Tensor:
        self.shown += n
        return self.images[self.shown - n : self.shown]

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"x": batch["x"]}


def three_ways(tmp_path: Path, weights: Path, features: int, n: int) -> list[float]:
    real, fake = pictures(n, 0, 0.0), pictures(n, 1, 1.0)
    # One class, one split: the whole folder is the test set.
    write_folder(tmp_path / "data" / "test" / "a", real)
    write_folder(tmp_path / "data" / "train" / "a", real[:4])
    data = ImageData(
        str(tmp_path / "data"), batch_size=4, eval_batch_size=24, cache_dir=str(tmp_path / "cache")
    )
    extractor = InceptionFeatures(str(weights), num_features=features)  # type: ignore[arg-type]
    callback = FrechetDistance(extractor, n_samples=n, split="test", chunk_size=17)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    Trainer(accelerator="cpu", default_root_dir=str(tmp_path), callbacks=[callback], **quiet).test(
        Album(fake), data, verbose=False
    )
    ours = callback.figures[f"test/{extractor.figure}"]

    # By default torchmetrics resizes by another rule (antialias), which moves the distance of these images by
    # 3 %.
    metric = FrechetInceptionDistance(
        feature=features, feature_extractor_weights_path=str(weights), antialias=False
    )
    metric.set_dtype(torch.float64)
    for images, is_real in ((real, True), (fake, False)):
        for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(31):
            metric.update(part, real=is_real)

    folders = [str(tmp_path / "data" / "test" / "a"), str(write_folder(tmp_path / "fake", fake))]
    words = [
        "--fid",
        "--cpu",
        "--silent",
        "--json",
        "--save-cpu-ram",
        "--no-datasets-download",
        "--batch-size",
        "32",
    ]
    words += ["--feature-extractor", "inception-v3-compat", "--feature-extractor-weights-path", str(weights)]
    words += [
        "--feature-layer-fid",
        str(features),
        "--input1",
        folders[0],
        "--input2",
        folders[1],
        "--samples-find-deep",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "torch_fidelity.fidelity", *words], capture_output=True, text=True, check=True
    )
    theirs = json.loads(found.stdout[found.stdout.index("{") :])["frechet_inception_distance"]
    return [ours, float(metric.compute()), theirs]


def test_the_weights_have_features_that_vary(weights: Path) -> None:
    extractor = InceptionFeatures(str(weights), num_features=64)
    extractor.prepare()
    x = torch.from_numpy(pictures(24, 5, 0.0)).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert 0.3 < float(extractor(x).std(dim=0).mean()) < 3
    assert extractor.figure.startswith("frechet_distance/inception64-")


@pytest.mark.slow
def test_streaming_in_other_pieces_is_the_one_shot_value(weights: Path) -> None:
    extractor = InceptionFeatures(str(weights), num_features=64)
    extractor.prepare()
    real, fake = (
        torch.from_numpy(pictures(20, seed, seed)).permute(0, 3, 1, 2).float() / 127.5 - 1 for seed in (0, 1)
    )
    values = []
    for size in (20, 7):
        metric = FrechetMetric(64)
        for x, is_real in ((real, True), (fake, False)):
            for part in x.split(size):
                metric.update(extractor(part), real=is_real)
        values.append(float(metric.compute()))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.slow
def test_three_programs_agree_on_the_early_layer(tmp_path: Path, weights: Path) -> None:
    ours, torchmetrics, fidelity = three_ways(tmp_path, weights, 64, 24)
    assert ours > 0.5
    assert ours == pytest.approx(torchmetrics, rel=1e-3)
    assert ours == pytest.approx(fidelity, rel=1e-3)


@pytest.mark.slow
def test_three_programs_agree_on_512_images(tmp_path: Path, weights: Path) -> None:
    ours, torchmetrics, fidelity = three_ways(tmp_path, weights, 64, 512)
    assert ours == pytest.approx(torchmetrics, rel=1e-3)
    assert ours == pytest.approx(fidelity, rel=1e-3)


@pytest.mark.slow
def test_three_programs_agree_on_the_layer_of_fid(tmp_path: Path, weights: Path) -> None:
    """With fewer images than features, square roots of a singular matrix leave an absolute floor."""
    ours, torchmetrics, fidelity = three_ways(tmp_path, weights, 2048, 64)
    assert ours == pytest.approx(torchmetrics, rel=1e-3, abs=1e-2)
    assert ours == pytest.approx(fidelity, rel=1e-3, abs=1e-2)
