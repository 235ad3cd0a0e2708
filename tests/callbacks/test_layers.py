"""What the callbacks show of each layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from lebm.callbacks import (
    HierarchicalSamples,
    LatentAttack,
    LatentTraversal,
    LayerClassification,
    LayerReconstruction,
    LongChain,
)
from lebm.errors import UserError
from tests.callbacks.tiny import EchoModel, TinyData, trainer
from tests.estimators.hierarchical_models import conditional, variational


def size(path: Path) -> tuple[int, int]:
    """Rows and columns of a grid of 4 x 4 images with lines of 2 pixels."""
    width, height = Image.open(path).size
    assert (width - 2) % 6 == (height - 2) % 6 == 0
    return (height - 2) // 6, (width - 2) // 6


def test_one_run_with_every_callback(tmp_path: Path) -> None:
    callbacks = [
        HierarchicalSamples(rows=3, columns=4, steps=2),
        LayerReconstruction(n=2, steps=2),
        LatentTraversal(columns=5),
        LayerClassification(epochs=1),
        LatentAttack(n=3, steps=2),
        LongChain(lengths=(0, 10), n=3),
    ]
    trainer(tmp_path, callbacks).test(variational(), datamodule=TinyData(), verbose=False)
    images = tmp_path / "images"
    for layer in (1, 2, 3):
        for kind in ("substitution", "conditional"):
            assert size(images / f"layer_{layer}_{kind}" / "test.png") == (3, 5)
    assert size(images / "layer_reconstructions" / "test.png") == (4, 2)  # data, and k = 0, 1, 2
    assert size(images / "traversal" / "test.png") == (5, 5)  # a row a coordinate
    assert size(images / "attack" / "test.png") == (8, 3)
    assert size(images / "long_chain" / "test.png") == (3, 2)
    figures = {name: value for callback in callbacks for name, value in callback.figures.items()}
    for layer in (1, 2, 3):
        share, low, high = (
            figures[f"test/latent_accuracy/layer_{layer}{end}"] for end in ("", "_low", "_high")
        )
        assert low < share < high
        assert min(figures[f"test/attack/layer_{layer}"], figures[f"test/attack/layer_{layer}_before"]) > 0
    assert figures["test/reconstruction_mse_above_0"] != figures["test/reconstruction_mse_above_2"]
    assert {"test/long_chain/rms_end", "test/long_chain/log_density"} <= set(figures)


def test_a_model_without_encoder_has_its_posterior_samples_classified(tmp_path: Path) -> None:
    callback = LayerClassification(epochs=1, limit=10)
    trainer(tmp_path, [callback, LayerReconstruction(steps=2)]).test(
        conditional("mcmc"), datamodule=TinyData(), verbose=False
    )
    assert callback.protocol["latent"] == "one posterior sample"
    with pytest.raises(UserError, match="requires a model with an encoder"):
        trainer(tmp_path, [LatentAttack()]).test(conditional("mcmc"), datamodule=TinyData(), verbose=False)


@pytest.mark.parametrize("kind", ["substitution", "conditional"])
def test_a_grid_changes_its_own_layer_only(kind: str) -> None:
    model, callback = variational(), HierarchicalSamples(rows=2, columns=3, steps=5)
    codes = torch.randn(5, 5, dtype=torch.float64)
    grid = callback.codes(model, codes, 1)[kind]
    own = model.layout.mask([1])
    assert torch.equal(grid[:, 0], codes[:2])
    assert torch.equal(grid[..., ~own], codes[:2, None, ~own].expand(-1, 4, -1))
    if kind == "substitution":
        assert torch.equal(grid[:, 1:, own], codes[2:, own].expand(2, -1, -1))
    else:
        assert not bool((grid[:, 1:, own] == codes[:2, None, own]).any())


def test_rows_without_a_label_are_no_class(tmp_path: Path) -> None:
    data = TinyData(held_out_label=None)
    callback = LayerClassification(epochs=1)
    for split in (data.train, data.test):
        split.labels[split.labels == 1] = -1
    trainer(tmp_path, [callback]).test(variational(), datamodule=data, verbose=False)
    right = 15 * callback.figures["test/latent_accuracy/all"]  # of 23 test rows, 8 have no label
    assert right == pytest.approx(round(right))
    assert right > 0
    for split in (data.train, data.test):
        split.labels[:] = -1
    with pytest.raises(UserError, match="requires labels, but a split of the data has none"):
        trainer(tmp_path, [callback]).test(variational(), datamodule=data, verbose=False)


def test_wrong_settings_and_models_are_named(tmp_path: Path) -> None:
    for callback in (HierarchicalSamples(), LayerReconstruction(), LayerClassification(), LatentAttack()):
        with pytest.raises(UserError, match="requires a model with several layers, but EchoModel has none"):
            trainer(tmp_path, [callback]).test(EchoModel(), datamodule=TinyData(), verbose=False)
    for make, message in (
        (lambda: HierarchicalSamples(rows=0), "rows must be at least 1"),
        (lambda: LayerReconstruction(n=0), "n must be at least 1"),
        (lambda: LatentTraversal(columns=1), "columns must be at least 2"),
        (lambda: LayerClassification(epochs=0), "epochs must be at least 1"),
        (lambda: LatentAttack(n=1), "n must be at least 2"),
        (lambda: LongChain(lengths=(60, 25)), "multiples of ten"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
