"""Sentences that a model writes, and how likely and how good sentences are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Trainer
from torch import Tensor

from lebm.callbacks.base import EvaluationCallback, Outputs, data_of
from lebm.callbacks.publish import moment
from lebm.callbacks.samples import SampleGrid
from lebm.data.text_rows import TextRows
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.sentence_bounds import LikelihoodBounds, likelihood_of_sentences
from lebm.evaluation.sentence_quality import SampleQuality

__all__ = ["SampleSentences", "SentenceBounds", "SentenceQuality"]


class SampleSentences(SampleGrid):
    """Draws sentences from the same noise every time and writes them, one a line, to ``samples/<when>.txt``
    and ``samples/latest.txt``.

    Args:
        n: number of sentences.
        every_n_epochs: distance between drawings in training; the model that training ends with is always
            drawn from.
        steps: length of the chain; the model's own if absent.
        seed: of the noise.

    Example:
        >>> from lebm.callbacks import SampleSentences
        >>> SampleSentences(n=5).n
        5
    """

    def __init__(self, n: int = 20, every_n_epochs: int = 1, steps: int | None = None, seed: int = 0) -> None:
        super().__init__(n, every_n_epochs, steps, seed=seed)

    def _show(self, trainer: Trainer, model: LatentEstimator, x: Tensor) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        sentences = likelihood_of_sentences(model, type(self).__name__).spell(x)
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (moment(trainer), "latest"):
            (folder / f"{name}.txt").write_text(
                "".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8"
            )
        for logger in trainer.loggers:
            writer: Any = getattr(logger, "experiment", None)
            if hasattr(writer, "add_text"):
                writer.add_text("samples", "\n\n".join(sentences), global_step=trainer.global_step)


class SentenceBounds(EvaluationCallback):
    """Negative log-likelihood per sentence and perplexity per token of the test sentences, with intervals;
    and log Z of the prior.

    :class:`~lebm.evaluation.sentence_bounds.LikelihoodBounds` computes them. Logs ``test/nll``,
    ``test/perplexity`` with ``_low`` and ``_high``, ``test/least_ess`` and ``test/log_z`` with its ends.

    Args:
        n: use the first ``n`` sentences; all if ``None``.
        chains: importance samples, or annealed chains, per sentence; at least 2.
        levels: of annealing; 1 is importance sampling. With more levels the step size is adapted batch by
            batch, so the values depend on the batch size and the number of processes, within their error.
        start: ``prior``, N(0, I) for every sentence, good where sentences say little about their latents; or
            ``posterior``, a Gaussian per sentence fitted to posterior chains.
        prior_chains: annealed chains for log Z.
        prior_levels: of annealing of the prior.
        in_validation: measure after validation too, where it costs as much.
        seed: of the noise.

    Attributes:
        counts: by logged name, how many sentences, or chains for log Z, are behind each value.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.callbacks import SentenceBounds
        >>> SentenceBounds(chains=200).bounds.chains
        200
    """

    def __init__(
        self,
        n: int | None = None,
        chains: int = 100,
        levels: int = 1,
        start: Literal["prior", "posterior"] = "prior",
        prior_chains: int = 512,
        prior_levels: int = 200,
        in_validation: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.bounds = LikelihoodBounds(n, chains, levels, start, prior_chains, prior_levels, seed)
        self.in_validation = in_validation
        self.counts: dict[str, int] = {}
        self._measuring = False

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        self._measuring = stage == "test" or self.in_validation
        if self._measuring:
            likelihood_of_sentences(model, type(self).__name__)
            self.bounds.begin(model)

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        if self._measuring:
            self.bounds.update(model, self.output(outputs, "x"), batch["index"])

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        if self._measuring:
            values = self.bounds.compute()
            self.report(model, {f"{stage}/{name}": value for name, value in values.items()})
            self.counts |= {f"{stage}/{name}": count for name, count in self.bounds.counts.items()}
            self.protocol.update(self.bounds.protocol)


class SentenceQuality(EvaluationCallback):
    """Forward and reverse perplexity, diversity of samples, and use of the latents, in testing only.

    :class:`~lebm.evaluation.sentence_quality.SampleQuality` computes them and trains the language models that
    judge. Logs ``test/forward_perplexity``, ``test/reverse_perplexity``, ``test/distinct_1``,
    ``test/distinct_2``, ``test/self_bleu`` and, beside them, ``test/real_*`` of as many real test sentences;
    ``test/active_units``, ``test/posterior_mean_variance`` and ``test/latent_nats``.

    Args:
        n: samples drawn, and training sentences that the forward model learns from.
        compared: sentences that self-BLEU compares.
        steps: of the language models' training.
        hidden: width of the language models.
        seed: of samples and language models.

    Attributes:
        counts: by logged name, how many sentences are behind each value: those that a language model judges,
            or that are counted.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.callbacks import SentenceQuality
        >>> SentenceQuality(n=500).quality.n
        500
    """

    def __init__(
        self, n: int = 2000, compared: int = 200, steps: int = 500, hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        self.quality = SampleQuality(n, compared, steps, hidden, seed)
        self.counts: dict[str, int] = {}
        self._measuring = False

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        self._measuring = stage == "test"
        if not self._measuring:
            return
        if trainer.world_size > 1:
            raise UserError(
                "SentenceQuality trains language models: test on one process, with --trainer.devices 1"
            )
        self.quality.begin(model)

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        if self._measuring:
            x, z = self.output(outputs, "x"), self.output(outputs, "z")
            self.quality.update(model, x, z, batch["index"])

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        if not self._measuring:
            return
        train = getattr(data_of(trainer), "train", None)
        if not isinstance(train, TextRows):
            raise UserError(
                "SentenceQuality needs lebm.data.TextData, from whose training split its language model"
                " learns"
            )
        values = self.quality.compute(model, train)
        self.report(model, {f"{stage}/{name}": value for name, value in values.items()})
        self.counts |= {f"{stage}/{name}": count for name, count in self.quality.counts.items()}
        self.protocol.update(self.quality.protocol)
