"""docs/callbacks.md has a row for every callback, with the names that it logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule, LightningModule

from lebm import callbacks, data, metrics
from lebm.callbacks import EvaluationCallback
from tests.callbacks.test_latents import staged
from tests.callbacks.test_sentences import sentence_model
from tests.callbacks.tiny import TinyData, trainer
from tests.estimators.hierarchical_models import variational

PAGE = Path(__file__).parents[2] / "docs" / "callbacks.md"


def rows_of_callbacks() -> dict[str, str]:
    """Names in the first column of docs/callbacks.md, with the second column."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(), re.M))


def test_the_page_has_one_row_for_each() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)
    missing = set(callbacks.__all__) ^ set(listed)
    assert sorted(listed) == sorted(callbacks.__all__), f"rows of docs/callbacks.md: {missing}"


def logged_by(
    model: LightningModule, rows: LightningDataModule, parts: list[EvaluationCallback], folder: Path
) -> dict[str, set[str]]:
    """Names that each callback logs in a test, without stage and layer numbers."""
    trainer(folder, parts).test(model, datamodule=rows, verbose=False)
    return {
        type(part).__name__: {re.sub(r"(layer_|above_|steps)\d+", r"\1k", name[5:]) for name in part.figures}
        for part in parts
    }


@pytest.mark.filterwarnings("ignore")
def test_the_page_names_what_is_logged(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "words" / f"{split}.txt").write_text("the cat runs\na dog runs\nthe dog sits\n")
    sentences = data.TextData(str(tmp_path / "words"), vocabulary_size=12, max_length=6, batch_size=3)
    measures = [
        callbacks.AnomalyDetection(),
        callbacks.ReconstructionError(),
        callbacks.FrechetDistance(metrics.FlatFeatures(), n_samples=10),
        callbacks.LongChain(lengths=(0, 10), n=3),
        callbacks.LayerReconstruction(n=2, steps=1),
        callbacks.LayerClassification(epochs=1),
        callbacks.LatentAttack(n=3, steps=1),
    ]
    judges = [
        callbacks.SentenceBounds(chains=2, prior_chains=2, prior_levels=1),
        callbacks.SentenceQuality(n=4, compared=2, steps=1, hidden=4),
    ]
    logged = {
        **logged_by(variational(), TinyData(), measures, tmp_path),
        **logged_by(staged(1, False), TinyData(), [callbacks.StagePicture(n=20)], tmp_path),
        **logged_by(sentence_model(2), sentences, judges, tmp_path),
    }
    assert all(logged.values())
    logged["FrechetDistance"] = {
        re.sub(r"/pixels\d+", "/<features>", name) for name in logged["FrechetDistance"]
    }
    page = rows_of_callbacks()
    for name, values in logged.items():
        written = {word for word in re.findall(r"`([^`]+)`", page[name]) if not re.match(r"images/", word)}
        assert values == written - {"fid"}, name  # Inception's
