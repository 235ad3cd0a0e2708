"""The text suite: the callbacks of sentences, run over the test split."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lebm.callbacks.sentences import SentenceBounds, SentenceQuality
from lebm.evaluation.context import Settings
from lebm.evaluation.record import Figure, SuiteResult

__all__ = ["text_suite"]

ELSEWHERE = {
    "log_z": "prior",
    **dict.fromkeys(("forward_perplexity", "distinct_1", "distinct_2", "self_bleu"), "samples"),
}
"""What the figures are of that are not of test sentences."""


def text_suite(model: Any, data: LightningDataModule, settings: Settings) -> SuiteResult:
    """Likelihood bounds and perplexity with their intervals, forward and reverse perplexity, diversity, and
    use of the latents.

    Args:
        model: of sentences.
        data: :class:`~lebm.data.TextData` of the run.
        settings: ``seed``, ``n_samples``, ``chains`` and ``levels`` matter.
    """
    callbacks: list[SentenceBounds | SentenceQuality] = [
        SentenceBounds(
            chains=max(100, settings.chains), prior_levels=2 * settings.levels, seed=settings.seed
        ),
        SentenceQuality(n=settings.n_samples, compared=min(200, settings.n_samples), seed=settings.seed),
    ]
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    accelerator = "gpu" if model.device.type == "cuda" else "cpu"
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        **quiet,  # type: ignore[arg-type]
    )
    trainer.test(model, datamodule=data, verbose=False)
    protocols = {type(callback).__name__: callback.protocol for callback in callbacks}
    result = SuiteResult({"name": "sentences", "seed": settings.seed, **protocols})
    values = {
        name.removeprefix("test/"): value
        for callback in callbacks
        for name, value in callback.figures.items()
    }
    counts = {
        name.removeprefix("test/"): count for callback in callbacks for name, count in callback.counts.items()
    }
    for name, value in values.items():
        if name.endswith(("_low", "_high")):
            continue
        low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
        level, how = (None, "") if low is None else (0.95, "of the estimates")
        result.figures.append(
            Figure(name, value, low, high, level, how, counts[name], ELSEWHERE.get(name, "test"))
        )
    return result
