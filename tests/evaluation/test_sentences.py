"""The text suite gives the values of the callbacks, with their intervals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lebm.callbacks import SentenceBounds, SentenceQuality
from lebm.data import TextData
from lebm.evaluation.context import SentenceSubject, Settings, Subject
from lebm.evaluation.run import SUITES, run_suites
from lebm.evaluation.sentences import LikelihoodBounds
from lebm.samplers import LogZ
from tests.callbacks.test_sentences import sentence_model
from tests.callbacks.tiny import latent_mle, trainer


def test_nll_and_perplexity_with_the_error_of_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def log_z(*values: list[float] | float) -> LogZ:
        return LogZ(*torch.tensor(values, dtype=torch.float64))

    estimates = [log_z([-10, -20], [-10.3, -20.4], [-9.7, -19.6], [50, 7]), log_z([-30], [-30], [-30], [9])]
    constants = log_z(1.0, 0.9, 1.1, 30), log_z(1.1, 1.0, 1.2, 30)
    monkeypatch.setattr("lebm.evaluation.sentences.log_marginal", lambda *_: estimates.pop(0))
    monkeypatch.setattr("lebm.evaluation.sentences.model_log_z", lambda *_: constants)
    bounds, model = LikelihoodBounds(), sentence_model(1)
    bounds.begin(model)
    bounds.update(model, torch.tensor([[4, 5, 6, 3, 0, 0], [4, 5, 6, 7, 8, 3]]), torch.arange(2))
    bounds.update(model, torch.full((1, 10), 4), torch.arange(2, 3))
    found = bounds.compute()
    half = math.hypot(0.3, 0.4) / 3
    assert found["nll"] == pytest.approx(21)
    assert found["nll_low"] == pytest.approx(21 - half - 0.1)
    assert found["nll_high"] == pytest.approx(21 + half + 0.2)
    assert found["perplexity"] == pytest.approx(math.exp(63 / 20))
    assert found["perplexity_high"] == pytest.approx(math.exp(3 * found["nll_high"] / 20))
    assert found["least_ess"] == 7


@pytest.mark.slow
def test_figures_of_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    lines = [f"{a} {b} runs" for a in ("the", "one", "a") for b in ("cat", "dog", "cow")]
    for name in ("train", "test"):
        (folder / f"{name}.txt").write_text("\n".join(lines))
    data = TextData(str(folder), vocabulary_size=12, max_length=6, batch_size=4)
    data.setup()
    model = sentence_model(2)
    model.likelihood.vocabulary = data.vocabulary
    results = dict(
        run_suites(
            ("text", "image"), SentenceSubject(model, data), Settings(n_samples=30, levels=5, chains=20)
        )
    )
    found = {figure.name: figure for figure in results["text"].figures}
    assert {
        "nll",
        "perplexity",
        "log_z",
        "forward_perplexity",
        "reverse_perplexity",
        "self_bleu",
        "active_units",
    } <= found.keys()
    assert found["nll"].low < found["nll"].value < found["nll"].high  # type: ignore[operator]
    assert (found["nll"].n, found["nll"].split) == (9, "test")
    # samples of the base, which tell more here than annealed chains
    assert (found["log_z"].n, found["log_z"].split) == (40 * 512, "prior")
    assert (found["forward_perplexity"].n, found["forward_perplexity"].split) == (30, "samples")
    assert (found["reverse_perplexity"].n, found["reverse_perplexity"].split) == (9, "test")
    assert (found["self_bleu"].n, found["self_bleu"].split) == (9, "samples")
    assert (found["active_units"].n, found["active_units"].split) == (9, "test")
    assert (found["real_distinct_1"].n, found["real_distinct_1"].split) == (9, "test")
    assert found["latent_nats"].n == 8, "a batch of one sentence has no other latent"
    assert found["self_bleu"].low is None
    callbacks = [SentenceBounds(prior_levels=10), SentenceQuality(n=30, compared=30)]
    trainer(tmp_path, callbacks).test(model, data, verbose=False)
    logged = {name: value for callback in callbacks for name, value in callback.figures.items()}
    assert {f"test/{name}": figure.value for name, figure in found.items()}.items() <= logged.items()
    assert "sentences" in results["image"].skipped
    assert results["text"].wall_time_seconds > 0


def test_the_documents_list_every_suite() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in SUITES if name not in rows] == []


def test_other_models_have_no_text() -> None:
    result = dict(run_suites(("text",), Subject(latent_mle(), None), Settings()))["text"]  # type: ignore[arg-type]
    assert "images" in result.skipped
    assert result.figures == []
