"""Callbacks of sentences on a tiny model, against quadrature where there is a truth."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lebm.callbacks import SampleSentences, SentenceBounds, SentenceQuality
from lebm.data import TextData
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import CategoricalLikelihood, EnergyPrior, MLPEnergy, RecurrentGenerator, StandardNormal
from lebm.models.text_likelihood import PAD
from lebm.samplers import Langevin
from tests.callbacks.tiny import TinyData, latent_mle, trainer
from tests.distributed import run_processes

LONGEST = 6


def sentence_model(latent_dim: int, energy: bool = True) -> LatentMLE:
    """Weights large enough that sentences say something about z, and an energy that is far from flat."""
    torch.manual_seed(0)
    generator = RecurrentGenerator(latent_dim, 12, LONGEST, 4, 6)
    prior = EnergyPrior(MLPEnergy(latent_dim, hidden=[8])) if energy else StandardNormal(latent_dim)
    lr = {"generator": 1e-3, "energy": 1e-3} if energy else {"generator": 1e-3}
    model = LatentMLE(
        CategoricalLikelihood(generator),
        prior,
        Langevin(20, 0.4),
        Langevin(20, 0.3),
        AdamGroups(lr),
        noise_shards=2,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model.double()


@pytest.fixture
def words(tmp_path: Path) -> TextData:
    folder = tmp_path / "words"
    folder.mkdir()
    lines = [f"{a} {b} runs" for a in ("the", "one", "a") for b in ("cat", "dog", "cow")]
    for name, part in (
        ("train", lines),
        ("validation", lines[:4]),
        ("test", [*lines[::2], "a", "the the the the the the the"]),
    ):
        (folder / f"{name}.txt").write_text("\n".join(part))
    return TextData(str(folder), vocabulary_size=12, max_length=LONGEST, batch_size=3)


def exact(model: LatentMLE, x: Tensor) -> tuple[float, float]:
    """Mean -log p(x) a sentence and log Z, on a grid."""
    side = torch.linspace(-7, 7, 141 if model.latent_dim == 2 else 4001, dtype=torch.float64)
    z = torch.cartesian_prod(*[side] * model.latent_dim).reshape(-1, model.latent_dim)
    cell = float(side[1] - side[0]) ** model.latent_dim
    with torch.no_grad():
        log_prior = model.prior.log_density(z)
        log_z = float(log_prior.logsumexp(0)) + math.log(cell)
        log_p = [
            float((model.likelihood.log_prob(row.expand(len(z), -1), z) + log_prior).logsumexp(0))
            + math.log(cell)
            - log_z
            for row in x
        ]
    return -sum(log_p) / len(log_p), log_z


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("how", ["prior", "posterior", pytest.param("annealed", marks=pytest.mark.slow)])
def test_bounds_are_those_of_quadrature(latent_dim: int, how: str, words: TextData, tmp_path: Path) -> None:
    bounds = {
        "prior": SentenceBounds(chains=2000, prior_levels=50),
        "posterior": SentenceBounds(chains=400, start="posterior", prior_levels=50),
        "annealed": SentenceBounds(chains=50, levels=30, prior_levels=50),
    }[how]
    model = sentence_model(latent_dim)
    trainer(tmp_path, [bounds]).test(model, words, verbose=False)
    x = words.test.tokens()
    nll, log_z = exact(model, x)
    found = {name.removeprefix("test/"): value for name, value in bounds.figures.items()}
    assert abs(log_z) > 0.3, "an energy that does something"
    # intervals are of 95%; twice as far is one in 10,000
    assert found["nll"] == pytest.approx(nll, abs=2 * (found["nll_high"] - found["nll_low"]) / 2)
    assert found["log_z"] == pytest.approx(log_z, abs=2 * (found["log_z_high"] - found["log_z_low"]) / 2)
    assert 0 < found["nll_high"] - found["nll_low"] < 0.4
    assert found["perplexity"] == pytest.approx(math.exp(found["nll"] * len(x) / int((x != PAD).sum())))


def test_a_gaussian_prior_has_no_constant_and_n_takes_the_first(words: TextData, tmp_path: Path) -> None:
    bounds = SentenceBounds(n=4, chains=2000)
    model = sentence_model(1, energy=False)
    trainer(tmp_path, [bounds]).test(model, words, verbose=False)
    nll, log_z = exact(model, words.test.tokens()[:4])
    assert log_z == pytest.approx(0, abs=1e-6)
    assert bounds.figures["test/log_z"] == bounds.figures["test/log_z_high"] == 0
    assert bounds.figures["test/nll"] == pytest.approx(
        nll, abs=bounds.figures["test/nll_high"] - bounds.figures["test/nll"]
    )


def _annealed(path: str, folder: Path) -> dict[str, float]:
    bounds = SentenceBounds(n=1, chains=4, levels=3)
    data = TextData(path, vocabulary_size=12, max_length=LONGEST, batch_size=2)
    trainer(folder, [bounds], devices=2).test(sentence_model(1, energy=False), data, verbose=False)
    return bounds.figures


@pytest.mark.slow
def test_a_process_without_a_chosen_sentence_keeps_none_waiting(words: TextData, tmp_path: Path) -> None:
    words.setup()
    first, second = run_processes(_annealed, words.path, tmp_path / "run")
    assert first == second
    tokens = int((words.test.tokens()[0] != PAD).sum())
    assert first["test/nll"] == pytest.approx(tokens * math.log(first["test/perplexity"]))


def test_sentences_are_written_and_qualities_measured(words: TextData, tmp_path: Path) -> None:
    quality = SentenceQuality(n=30, compared=10, steps=3, hidden=4)
    run = trainer(
        tmp_path,
        [SampleSentences(n=5), quality, SentenceBounds(n=2, chains=4, prior_levels=5, in_validation=True)],
    )
    model = sentence_model(2)
    run.fit(model, words)
    assert len((tmp_path / "samples" / "latest.txt").read_text().splitlines()) == 5
    assert len(list((tmp_path / "samples").glob("epoch-*.txt"))) == 2
    assert math.isfinite(run.callback_metrics["val/nll"])
    run.test(model, words, verbose=False)
    found = quality.figures
    names = {
        "forward_perplexity",
        "reverse_perplexity",
        "distinct_1",
        "distinct_2",
        "self_bleu",
        "real_distinct_1",
        "latent_nats",
    }
    assert {f"test/{name}" for name in names} <= set(found)
    assert found["test/latent_nats"] > 0.01
    assert 1 < found["test/forward_perplexity"] < 12
    assert quality.protocol["language_model"]["steps"] == 3
    assert (tmp_path / "samples" / "test.txt").exists()


def test_figures_do_not_depend_on_batches(words: TextData, tmp_path: Path) -> None:
    figures = []
    for size in (1, 7):
        bounds = SentenceBounds(chains=8, prior_levels=5)
        data = TextData(
            words.path, vocabulary_size=12, max_length=LONGEST, batch_size=3, eval_batch_size=size
        )
        trainer(tmp_path, [bounds]).test(sentence_model(2), data, verbose=False)
        figures.append(bounds.figures["test/nll"])
    assert figures[0] == pytest.approx(figures[1], abs=1e-9)


@pytest.mark.parametrize("callback", [SampleSentences(), SentenceBounds(), SentenceQuality()])
def test_models_of_images_are_refused_in_one_line(callback, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is for models of sentences"):
        trainer(tmp_path, [callback]).test(latent_mle(), TinyData(), verbose=False)


@pytest.mark.parametrize(
    "make", [lambda: SentenceBounds(chains=1), lambda: SentenceBounds(n=0), lambda: SentenceQuality(n=1)]
)
def test_arguments_out_of_range(make) -> None:
    with pytest.raises(ValueError, match="at least"):
        make()
