"""The text suite: likelihood, quality and use of the latents on the test split."""

from __future__ import annotations

import torch

from lebm.evaluation.context import SentenceSubject, Settings
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.sentence_bounds import LikelihoodBounds, likelihood_of_sentences
from lebm.evaluation.sentence_quality import SampleQuality

__all__ = ["text_suite"]

ELSEWHERE = {
    "log_z": "prior",
    **dict.fromkeys(("forward_perplexity", "distinct_1", "distinct_2", "self_bleu"), "samples"),
}
"""The samples behind the metrics that test sentences are not behind."""


def text_suite(subject: SentenceSubject, settings: Settings) -> SuiteResult:
    """Likelihood bounds and perplexity with intervals, forward and reverse perplexity, diversity, and use of
    the latents.

    Args:
        subject: a model of sentences and its data.
        settings: only ``seed``, ``n_samples``, ``chains`` and ``levels`` are used.
    """
    model, data = subject.model.eval(), subject.data
    assert data.vocabulary is not None  # after its setup
    likelihood_of_sentences(model, "text_suite").adopt(data.vocabulary)
    bounds = LikelihoodBounds(
        chains=max(100, settings.chains), prior_levels=2 * settings.levels, seed=settings.seed
    )
    quality = SampleQuality(n=settings.n_samples, compared=min(200, settings.n_samples), seed=settings.seed)
    with torch.no_grad():
        bounds.begin(model)
        quality.begin(model)
        for number, batch in enumerate(data.test_dataloader()):
            batch = {name: part.to(model.device) for name, part in batch.items()}
            outputs = model.test_step(batch, number)
            bounds.update(model, outputs["x"], batch["index"])
            quality.update(model, outputs["x"], outputs["z"], batch["index"])
        values = {**bounds.compute(), **quality.compute(model, data.train)}
    counts = {**bounds.counts, **quality.counts}
    result = SuiteResult(
        {
            "name": "sentences",
            "seed": settings.seed,
            "SentenceBounds": bounds.protocol,
            "SentenceQuality": quality.protocol,
        }
    )
    for name, value in values.items():
        if name.endswith(("_low", "_high")):
            continue
        low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
        level, how = (None, "") if low is None else (0.95, "of the estimates")
        result.figures.append(
            Figure(name, value, low, high, level, how, counts[name], ELSEWHERE.get(name, "test"))
        )
    return result
