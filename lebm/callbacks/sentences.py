"""The likelihood of test sentences, and the quality of sampled sentences."""

from typing import Any, Literal

from lightning.pytorch import Trainer

from lebm.callbacks.base import Batch, EvaluationCallback, data_of
from lebm.data.rows import TextRows
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.sentences import LikelihoodBounds, SampleQuality, likelihood_of_sentences


class _SentenceMeasure:
    measure: Any
    in_validation = False

    def check(self, trainer: Trainer, model: LatentModel, batch: Batch) -> None:
        likelihood_of_sentences(model, type(self).__name__)

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        return stage == "test" or self.in_validation

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self.measure.begin(model)


class SentenceBounds(_SentenceMeasure, EvaluationCallback):
    """Negative log-likelihood per sentence and perplexity per token of test sentences.

    :class:`~lebm.evaluation.sentences.LikelihoodBounds` computes both with intervals, and log Z of the prior.
    It logs ``test/nll``, ``test/perplexity`` and ``test/log_z``, each also with ``_low`` and ``_high``, and
    ``test/least_ess``.

    Args:
        n: number of sentences, the first ones; all if ``None``.
        chains: number of importance samples, or annealed chains, per sentence, at least 2.
        levels: number of annealing levels; 1 is importance sampling. With more levels every batch adapts the
            step size, so values depend on batch size and number of processes, within their error.
        start: ``"prior"`` is N(0, I), for sentences that are only weakly informative about their latents;
            ``"posterior"`` is a Gaussian per sentence, fitted to posterior chains.
        prior_chains: number of annealed chains for log Z, at least 2.
        prior_levels: number of annealing levels for log Z.
        in_validation: whether every validation is also measured, which takes as long as in a test.
        seed: seed of the noise.

    Raises:
        UserError: if the model is not a model of sentences, or has no differentiable posterior density.

    Example:
        >>> from lebm.callbacks import SentenceBounds
        >>> SentenceBounds(chains=200).measure.chains
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
        self.measure = LikelihoodBounds(n, chains, levels, start, prior_chains, prior_levels, seed)
        self.in_validation = in_validation

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        self.measure.update(model, self.output(outputs, "x"), batch["index"])

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        values = self.measure.compute()
        self.report(model, {f"{stage}/{name}": value for name, value in values.items()})
        self.protocol.update(self.measure.protocol)


class SentenceQuality(_SentenceMeasure, EvaluationCallback):
    """Forward and reverse perplexity, diversity of samples, and use of the latents, only in tests.

    :class:`~lebm.evaluation.sentences.SampleQuality` computes them with trained language models. Its method
    ``compute`` lists the names, which are logged with the prefix ``test/``.

    Args:
        n: number of samples, and of training sentences for the forward model; at least 2.
        compared: number of sentences for self-BLEU, at least 2.
        steps: number of training steps of a language model.
        hidden: width of the language models.
        seed: seed of samples and language models.

    Raises:
        UserError: with more than one process, or for a model or data other than sentences.

    Example:
        >>> from lebm.callbacks import SentenceQuality
        >>> SentenceQuality(n=500).measure.n
        500
    """

    def __init__(
        self, n: int = 2000, compared: int = 200, steps: int = 500, hidden: int = 128, seed: int = 0
    ) -> None:
        self.measure = SampleQuality(n, compared, steps, hidden, seed)

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        if not isinstance(getattr(data_of(trainer), "train", None), TextRows):
            raise UserError(
                "SentenceQuality needs lebm.data.TextData: its language model learns from the training split"
            )
        if trainer.world_size > 1:
            raise UserError(
                "SentenceQuality trains language models: test on one process, with --trainer.devices 1"
            )
        super().begin(trainer, model, stage, batch)

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        self.measure.update(model, self.output(outputs, "x"), self.output(outputs, "z"), batch["index"])

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        values = self.measure.compute(model, data_of(trainer).train)
        self.report(model, {f"{stage}/{name}": value for name, value in values.items()})
        self.protocol.update(self.measure.protocol)
