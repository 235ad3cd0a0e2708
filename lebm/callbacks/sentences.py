"""Sentences in a run: samples to read, and how likely, fluent, varied and latent-driven they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from lebm.callbacks.base import EvaluationCallback, Outputs
from lebm.callbacks.publish import moment
from lebm.callbacks.samples import SampleGrid
from lebm.errors import UserError
from lebm.evaluation.marginal_likelihood import LatentGaussian, joint_density, log_marginal, prior_log_z
from lebm.metrics.text_diversity import SentenceDiversity
from lebm.metrics.text_latents import LatentUse
from lebm.metrics.text_likelihood import SentenceLikelihood
from lebm.metrics.text_perplexity import Budget, LanguageModelPerplexity
from lebm.models.text_likelihood import CategoricalLikelihood, sentence_likelihood
from lebm.models.text_vocabulary import PAD
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.metropolis import HMC
from lebm.samplers.noise import Noise

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
    """

    def __init__(self, n: int = 20, every_n_epochs: int = 1, steps: int | None = None, seed: int = 0) -> None:
        super().__init__(n, every_n_epochs, steps, seed=seed)

    def _show(self, trainer: Trainer, model: Any, x: Tensor) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        sentences = _sentences_of(model, self).spell(x)
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
    """Negative log-likelihood a sentence and perplexity a token of the test sentences, with intervals; and
    log Z of the prior.

    By importance sampling, or annealed from a Gaussian a sentence (see
    :func:`lebm.evaluation.marginal_likelihood.log_marginal`). Logs ``test/nll``, ``test/perplexity`` with
    ``_low`` and ``_high``, ``test/least_ess`` and ``test/log_z`` with its ends.

    Args:
        n: the first so many sentences; all if ``None``.
        chains: importance samples, or annealed chains, a sentence; at least 2.
        levels: of annealing; 1 is importance sampling. With more the step is adapted batch by batch, so that
            figures depend on the batch size and the number of processes, within their error.
        start: ``prior``, N(0, I) for every sentence, good where sentences say little about their latents; or
            ``posterior``, a Gaussian a sentence fitted to posterior chains.
        prior_chains: annealed chains for log Z.
        prior_levels: of annealing of the prior.
        in_validation: do it after validation too, where it costs as much.
        seed: of the noise.

    Attributes:
        counts: how many sentences, or chains for log Z, are behind each figure, by its logged name.

    Raises:
        ValueError: for a number out of range.
    """

    FITTED_TO = 16
    LONG_RUN = 10

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
        if min(1 if n is None else n, levels, prior_levels) < 1 or min(chains, prior_chains) < 2:
            raise ValueError(
                "n, levels and prior_levels must be at least 1, chains and prior_chains at least 2"
            )
        self.n, self.chains, self.levels, self.start = n, chains, levels, start
        self.prior_chains, self.prior_levels = prior_chains, prior_levels
        self.in_validation, self.seed = in_validation, seed
        self.counts: dict[str, int] = {}
        self._metric = SentenceLikelihood()
        self._log_z: LogZ | None = None

    def begin(self, trainer: Trainer, model: Any, stage: str, batch: Mapping[str, Tensor]) -> None:
        self._log_z = None
        if stage == "val" and not self.in_validation:
            return
        _sentences_of(model, self)
        if not callable(getattr(model, "posterior", None)):
            raise UserError(
                "SentenceBounds needs a model with posterior(x), the differentiable log p(x, z), not"
                f" {type(model).__name__}"
            )
        self._metric.to(model.device).reset()
        self._log_z = self._constant(model)

    def _constant(self, model: Any) -> LogZ:
        """The same streams on every process: all do the same short work and agree."""
        prior = getattr(model, "prior", None)
        if prior is None or prior.is_exact:
            return prior_log_z(None, self._annealing(model, 1), self.prior_chains)[0]
        steps = self.LONG_RUN * model.prior_sampler.steps
        draws = model.sample_latent(
            self.prior_chains, steps=steps, generator=Noise([(self.seed, "long run")])
        )
        annealing = self._annealing(model, self.prior_levels)
        below, above = prior_log_z(
            prior, annealing, self.prior_chains, Noise([(self.seed, "log z")]), long_run=draws
        )
        assert above is not None
        return LogZ(below.estimate, below.low, torch.maximum(below.high, above.high), below.ess)

    def _annealing(self, model: Any, levels: int) -> AnnealedImportanceSampling:
        kernel = HMC(1, 0.3, leapfrog_steps=3).to(model.device)
        return AnnealedImportanceSampling(kernel, levels, "sigmoid" if levels > 1 else "linear")

    def collect(
        self, trainer: Trainer, model: Any, stage: str, outputs: Outputs, batch: Mapping[str, Tensor]
    ) -> None:
        if self._log_z is None:
            return
        index = batch["index"]
        chosen = torch.ones_like(index, dtype=torch.bool) if self.n is None else index < self.n
        x, index = self.output(outputs, "x")[chosen], index[chosen]
        if not len(x):
            return
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()  # an inference tensor could not take part in the chains' gradients
            start, annealing = self._proposal(model, x, index), self._annealing(model, self.levels)
            noise = Noise.samples(self.seed, "bounds", index=index)
            found = log_marginal(partial(joint_density, model), x, start, annealing, self.chains, noise)
        self._metric.update(found, (x != PAD).sum(dim=1))

    def _proposal(self, model: Any, x: Tensor, index: Tensor) -> LatentGaussian:
        if self.start == "prior":
            return LatentGaussian.standard(
                torch.zeros(len(x), model.latent_dim, dtype=model.dtype, device=x.device)
            )
        noise = Noise.samples(self.seed, "proposal", index=index)
        z = model.encode(x.repeat_interleave(self.FITTED_TO, dim=0), generator=noise)
        return LatentGaussian.fitted(z.reshape(len(x), self.FITTED_TO, -1).transpose(0, 1))

    def finish(self, trainer: Trainer, model: LightningModule, stage: str) -> None:
        log_z = self._log_z
        if log_z is None:
            return
        self._metric.log_z = log_z
        figures = self._metric.compute()
        with self._metric.sync_context():
            sentences = int(self._metric.sentences)
        constant = {"log_z": log_z.estimate, "log_z_low": log_z.low, "log_z_high": log_z.high}
        self.report(
            model, {f"{stage}/{name}": float(value) for name, value in {**figures, **constant}.items()}
        )
        self.counts |= {f"{stage}/{name}": sentences for name in figures} | {
            f"{stage}/{name}": self.prior_chains for name in constant
        }
        names = ("n", "chains", "levels", "start", "prior_chains", "prior_levels", "seed")
        self.protocol.update(
            {name: getattr(self, name) for name in names},
            nll="nats a sentence",
            perplexity="a token, <eos> included",
        )


class SentenceQuality(EvaluationCallback):
    """Forward and reverse perplexity, diversity of samples, and use of the latents, in testing only.

    The judging language models are trained here, by the budget that the arguments state; samples are as many
    as ``n``, and the forward model learns from as many training sentences. Logs ``test/forward_perplexity``,
    ``test/reverse_perplexity``, ``test/distinct_1``, ``test/distinct_2``, ``test/self_bleu`` and, beside
    them, ``test/real_*`` of as many real test sentences; ``test/active_units``,
    ``test/posterior_mean_variance`` and ``test/latent_nats``.

    Args:
        n: samples drawn, and training sentences that the forward model learns from.
        compared: self-BLEU looks at so many.
        steps: of the language models' training.
        hidden: width of the language models.
        seed: of samples and language models.

    Attributes:
        counts: how many sentences are behind each figure, by its logged name: those that a language model
            judges or that are counted.
    """

    def __init__(
        self, n: int = 2000, compared: int = 200, steps: int = 500, hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        if min(n, compared) < 2 or min(steps, hidden) < 1:
            raise ValueError("n and compared must be at least 2, steps and hidden at least 1")
        self.n, self.compared, self.seed = n, compared, seed
        self.budget = Budget(steps=steps, hidden=hidden, seed=seed)
        self.counts: dict[str, int] = {}
        self._use: LatentUse | None = None
        self._samples = torch.empty(0)
        self._real: list[Tensor] = []

    def begin(self, trainer: Trainer, model: Any, stage: str, batch: Mapping[str, Tensor]) -> None:
        if stage != "test":
            return
        if trainer.world_size > 1:
            raise UserError(
                "SentenceQuality trains language models: test on one process, with --trainer.devices 1"
            )
        _sentences_of(model, self)
        self._use = LatentUse(model.latent_dim).to(model.device)
        self._samples = model.sample(self.n, generator=Noise.shards(self.seed, "sentence quality"))
        self._real = []

    def collect(
        self, trainer: Trainer, model: Any, stage: str, outputs: Outputs, batch: Mapping[str, Tensor]
    ) -> None:
        if self._use is None:
            return
        x, z = self.output(outputs, "x"), self.output(outputs, "z")
        noise = model.sample_noise("second draw", batch["index"])
        other = model.encode(x, generator=noise)
        likelihood = _sentences_of(model, self).given(x)
        with torch.no_grad():
            own, foreign = likelihood(z), likelihood(z.roll(1, 0))
        self._use.update(z, other, own, foreign if len(x) > 1 else foreign[:0])
        self._real.append(x)

    def finish(self, trainer: Trainer, model: Any, stage: str) -> None:
        if self._use is None:
            return
        likelihood = _sentences_of(model, self)
        size, length = likelihood.generator.vocabulary_size, likelihood.generator.max_length
        forward, reverse = (
            LanguageModelPerplexity(size, self.budget),
            LanguageModelPerplexity(size, self.budget),
        )
        varied, real = SentenceDiversity(self.compared), SentenceDiversity(self.compared)
        train = self._training_sentences(trainer, length).to(model.device)
        for metric in (forward, reverse, varied, real):
            metric.to(model.device)
        test = torch.cat([pad(x, (0, length - x.shape[1]), value=PAD) for x in self._real])
        forward.update(train, learn=True)
        forward.update(self._samples, learn=False)
        reverse.update(self._samples, learn=True)
        reverse.update(test, learn=False)
        compared = min(len(test), self.n)
        varied.update(
            self._samples[:compared]
        )  # the share of different words falls with the number of sentences
        real.update(test[:compared])
        variety = varied.compute()
        figures = {
            "forward_perplexity": forward.compute(),
            "reverse_perplexity": reverse.compute(),
            **variety,
        }
        figures |= {f"real_{name}": value for name, value in real.compute().items()}
        use = self._use.compute()
        self.report(model, {f"{stage}/{name}": float(value) for name, value in {**figures, **use}.items()})
        counts = {"forward_perplexity": len(self._samples), "reverse_perplexity": len(test)}
        for name in variety:
            counts[name] = counts[f"real_{name}"] = (
                min(compared, self.compared) if name == "self_bleu" else compared
            )
        counts |= {
            name: int(self._use.compared if name == "latent_nats" else self._use.count) for name in use
        }
        self.counts |= {f"{stage}/{name}": count for name, count in counts.items()}
        self.protocol.update(
            samples=self.n, compared=self.compared, language_model=dataclasses.asdict(self.budget)
        )
        self._use, self._real, self._samples = None, [], torch.empty(0)

    def _training_sentences(self, trainer: Trainer, length: int) -> Tensor:
        rows = getattr(getattr(trainer, "datamodule", None), "train", None)
        if rows is None or not hasattr(rows, "tokens"):
            raise UserError(
                "SentenceQuality needs lebm.data.TextData, from whose training split its language model"
                " learns"
            )
        generator = torch.Generator().manual_seed(self.seed)
        x = rows.tokens(torch.randperm(len(rows), generator=generator)[: self.n].numpy())
        return pad(x, (0, length - x.shape[1]), value=PAD)


def _sentences_of(model: LightningModule, callback: EvaluationCallback) -> CategoricalLikelihood:
    found = sentence_likelihood(model)
    if found is None:
        raise UserError(f"{type(callback).__name__} is for models of sentences, with a CategoricalLikelihood")
    return found
