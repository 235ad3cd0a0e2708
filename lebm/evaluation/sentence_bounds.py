"""Bounds on the likelihood of sentences, batch by batch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.answers import HasPosterior
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.log_z import annealing, model_log_z
from lebm.evaluation.marginal_likelihood import LatentGaussian, log_marginal
from lebm.metrics.text_likelihood import SentenceLikelihood
from lebm.models.text_likelihood import CategoricalLikelihood
from lebm.models.text_vocabulary import PAD
from lebm.samplers.annealed import LogZ
from lebm.samplers.noise import Noise

__all__ = ["LikelihoodBounds", "likelihood_of_sentences"]

FITTED_TO = 16  # posterior chains per sentence, to which a Gaussian is fitted


def likelihood_of_sentences(model: LatentEstimator, who: str) -> CategoricalLikelihood:
    """The likelihood of a model of sentences.

    Args:
        model: the model.
        who: name of the part that needs such a model, for the message.

    Raises:
        UserError: if the model is not one of sentences.
    """
    likelihood = model.sentences
    if likelihood is None:
        raise UserError(f"{who} is for models of sentences, with a CategoricalLikelihood")
    return likelihood


class LikelihoodBounds:
    """Negative log-likelihood per sentence and perplexity per token, with intervals, and log Z of the prior.

    The method is importance sampling, or annealing from a Gaussian per sentence (see
    :func:`~lebm.evaluation.marginal_likelihood.log_marginal`). Call :meth:`begin`, then :meth:`update` for
    every batch, then :meth:`compute`. Several processes may each take a part of the batches.

    Args:
        n: use the first ``n`` sentences; all if ``None``.
        chains: importance samples, or annealed chains, per sentence; at least 2.
        levels: annealing levels; 1 is importance sampling. With more levels, every batch adapts the step
            size. The values then depend on the batch size and the number of processes, within their error.
        start: ``prior`` is N(0, I) for every sentence, good if sentences say little about their latents.
            ``posterior`` is a Gaussian per sentence, fitted to posterior chains.
        prior_chains: annealed chains for log Z; at least 2.
        prior_levels: annealing levels for log Z.
        seed: of the noise.

    Attributes:
        counts: number of sentences behind each value; for log Z, the number of chains.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.evaluation.sentence_bounds import LikelihoodBounds
        >>> LikelihoodBounds(chains=10).protocol["chains"]
        10
    """

    def __init__(
        self,
        n: int | None = None,
        chains: int = 100,
        levels: int = 1,
        start: Literal["prior", "posterior"] = "prior",
        prior_chains: int = 512,
        prior_levels: int = 200,
        seed: int = 0,
    ) -> None:
        if min(1 if n is None else n, levels, prior_levels) < 1 or min(chains, prior_chains) < 2:
            raise ValueError(
                "n, levels and prior_levels must be at least 1, chains and prior_chains at least 2"
            )
        self.n, self.chains, self.levels, self.start = n, chains, levels, start
        self.prior_chains, self.prior_levels, self.seed = prior_chains, prior_levels, seed
        self.counts: dict[str, int] = {}
        self._metric = SentenceLikelihood()

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings and units, as plain values."""
        return {
            "n": self.n,
            "chains": self.chains,
            "levels": self.levels,
            "start": self.start,
            "prior_chains": self.prior_chains,
            "prior_levels": self.prior_levels,
            "seed": self.seed,
            "nll": "nats per sentence",
            "perplexity": "per token, <eos> included",
        }

    def begin(self, model: LatentEstimator) -> None:
        """Forget earlier batches, and estimate log Z of the model's prior.

        Every process uses the same noise streams, so all processes compute the same estimate.

        Raises:
            UserError: if the posterior density of the model cannot be differentiated.
        """
        if not isinstance(model, HasPosterior):
            raise UserError(
                "SentenceBounds needs a model with posterior(x), the differentiable log p(x, z), not"
                f" {type(model).__name__}"
            )
        self._metric.to(model.device).reset()
        below, above = model_log_z(
            model, self.prior_levels, self.prior_chains, lambda purpose: Noise([(self.seed, purpose)])
        )
        high = below.high if above is None else torch.maximum(below.high, above.high)
        self._metric.log_z = LogZ(below.estimate, below.low, high, below.ess)

    def update(self, model: LatentEstimator, x: Tensor, index: Tensor) -> None:
        """Take a batch.

        Args:
            model: of sentences.
            x: sentences ``(B, T)``.
            index: numbers of the sentences, ``(B,)``, which key the noise.
        """
        if self.n is not None:
            chosen = index < self.n
            x, index = x[chosen], index[chosen]
        if not len(x):
            return
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()  # an inference tensor could not take part in the chains' gradients
            assert isinstance(model, HasPosterior)  # checked at the begin
            start, kernel = self._proposal(model, x, index), annealing(self.levels, model.device)
            noise = Noise.samples(self.seed, "bounds", index=index)
            estimate = log_marginal(model.posterior, x, start, kernel, self.chains, noise)
        self._metric.update(estimate, (x != PAD).sum(dim=1))

    def _proposal(self, model: LatentEstimator, x: Tensor, index: Tensor) -> LatentGaussian:
        if self.start == "prior":
            like = torch.zeros(len(x), model.latent_dim, device=x.device).to(model.dtype)
            return LatentGaussian.standard(like)
        noise = Noise.samples(self.seed, "proposal", index=index)
        z = model.encode(x.repeat_interleave(FITTED_TO, dim=0), generator=noise)
        return LatentGaussian.fitted(z.reshape(len(x), FITTED_TO, -1).transpose(0, 1))

    def compute(self) -> dict[str, float]:
        """``nll``, ``perplexity`` and ``log_z``, each also with ``_low`` and ``_high``, and ``least_ess``.

        ``nll`` is in nats per sentence, ``perplexity`` is per token, ``<eos>`` included. All processes must
        call this.
        """
        bounds = {name: float(value) for name, value in self._metric.compute().items()}
        with self._metric.sync_context():
            sentences = int(self._metric.sentences)
        log_z = self._metric.log_z
        ends = {"log_z": log_z.estimate, "log_z_low": log_z.low, "log_z_high": log_z.high}
        constant = {name: float(value) for name, value in ends.items()}
        self.counts = dict.fromkeys(bounds, sentences) | dict.fromkeys(constant, self.prior_chains)
        return {**bounds, **constant}
