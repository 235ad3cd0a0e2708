"""The text suite: bounds on the likelihood of sentences, their quality, and use of the latents."""

from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics import MinMetric, SumMetric

from lebm.data.rows import TextRows
from lebm.errors import UserError, at_least
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.context import SentenceSubject, Settings
from lebm.evaluation.intervals import LEVEL
from lebm.evaluation.marginal_likelihood import DIRECT, LatentGaussian, log_marginal, model_log_z
from lebm.evaluation.record import Figure, SuiteResult
from lebm.metrics.text_likelihood import Budget, diversity, language_model_perplexity, latent_use
from lebm.models.text_likelihood import PAD, CategoricalLikelihood
from lebm.samplers.noise import Noise

__all__ = ["LikelihoodBounds", "SampleQuality", "likelihood_of_sentences", "text_suite"]

QUANTILE = NormalDist().inv_cdf(0.975)
FITTED_TO = 16  # posterior chains per sentence for the fit of a Gaussian


def likelihood_of_sentences(model: LatentModel, who: str) -> CategoricalLikelihood:
    """Return the likelihood of a model of sentences; reject other models for the part named ``who``."""
    if model.sentences is None:
        raise UserError(f"{who} is for models of sentences, with a CategoricalLikelihood")
    return model.sentences


@dataclass
class LikelihoodBounds:
    """Negative log-likelihood per sentence and perplexity per token, with intervals, and log Z of the prior.

    The estimate of a sentence is ``log ∫ p~(x, z) dz - log Z``, whose first part is low on average, so the
    mean is an upper bound of the negative log-likelihood in nats, up to the error of log Z. Perplexity counts
    ``<eos>`` as a token.

    The 95% intervals describe the error of the estimates for these sentences, not the variation between test
    sets. The errors of single sentences are independent, and the error of log Z is added in full, because all
    sentences share it.

    The method is importance sampling, or annealing from a Gaussian per sentence, see
    :func:`~lebm.evaluation.marginal_likelihood.log_marginal`. Call :meth:`begin`, then :meth:`update` for
    every batch, then :meth:`compute`. Batches may be distributed over processes.

    Arguments are listed in :class:`lebm.callbacks.SentenceBounds`.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.evaluation.sentences import LikelihoodBounds
        >>> LikelihoodBounds(chains=10).protocol["chains"]
        10
    """

    n: int | None = None
    chains: int = 100
    levels: int = 1
    start: Literal["prior", "posterior"] = "prior"
    prior_chains: int = 512
    prior_levels: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, n=self.n, levels=self.levels, prior_levels=self.prior_levels)
        at_least(2, chains=self.chains, prior_chains=self.prior_chains)

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings and units, as plain values."""
        return {**asdict(self), "nll": "nats per sentence", "perplexity": "per token, <eos> included"}

    def begin(self, model: LatentModel) -> None:
        """Discard earlier batches, and estimate log Z of the prior of a model with a posterior density.

        All processes use equal noise streams and so compute equal estimates.
        """
        # Sums of the estimates, of their squared errors, of sentences and of tokens.
        self._sums = [SumMetric(nan_strategy="disable").to(model.device) for _ in range(4)]
        self._least_ess = MinMetric(nan_strategy="disable").to(model.device)
        for metric in (*self._sums, self._least_ess):
            metric.set_dtype(torch.float64)  # last, because after a move the metric rounds its inputs
        levels, chains = self.prior_levels, self.prior_chains
        below, above = model_log_z(model, levels, chains, lambda purpose: Noise([(self.seed, purpose)]))
        self._log_z = replace(below, high=torch.maximum(below.high, above.high))
        self.prior_draws = chains * (DIRECT if below is above else 1)

    def update(self, model: LatentModel, x: Tensor, index: Tensor) -> None:
        """Add a batch of sentences ``x: (B, T)``, whose numbers ``index: (B,)`` key the noise."""
        if self.n is not None:
            chosen = index < self.n
            x, index = x[chosen], index[chosen]
        if not len(x):
            return
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()  # inference tensors have no gradients
            if self.start == "prior":
                like = torch.zeros(len(x), model.latent_dim, device=x.device).to(model.dtype)
                start = LatentGaussian.standard(like)
            else:
                noise = Noise.samples(self.seed, "proposal", index=index)
                z = model.encode(x.repeat_interleave(FITTED_TO, dim=0), generator=noise)
                start = LatentGaussian.fitted(z.reshape(len(x), FITTED_TO, -1).transpose(0, 1))
            noise = Noise.samples(self.seed, "bounds", index=index)
            estimate = log_marginal(model.posterior, x, start, self.levels, self.chains, noise)
        error = (estimate.high - estimate.low) / (2 * QUANTILE)
        values = estimate.estimate, error.square(), torch.tensor(len(x)), (x != PAD).sum(dim=1)
        for metric, value in zip(self._sums, values, strict=True):
            metric.update(value)
        self._least_ess.update(estimate.ess)

    def compute(self) -> dict[str, float]:
        """Return ``nll``, ``perplexity``, ``log_z``, their ``_low`` and ``_high``, and ``least_ess``; a
        collective call.
        """
        log_z, (total, variance, sentences, tokens) = self._log_z, (each.compute() for each in self._sums)
        middle = log_z.estimate.to(total) - total / sentences
        half = QUANTILE * variance.sqrt() / sentences
        below = (log_z.estimate - log_z.low).clamp_min(0).to(total)
        above = (log_z.high - log_z.estimate).clamp_min(0).to(total)
        nll = {"nll": middle, "nll_low": middle - half - below, "nll_high": middle + half + above}
        values = {name: (value * (sentences / tokens)).exp() for name, value in nll.items()}
        perplexity = {name.replace("nll", "perplexity"): value for name, value in values.items()}
        constant = {"log_z": log_z.estimate, "log_z_low": log_z.low, "log_z_high": log_z.high}
        found = {**nll, **perplexity, "least_ess": self._least_ess.compute(), **constant}
        return {name: float(value) for name, value in found.items()}


@dataclass
class SampleQuality:
    """Forward and reverse perplexity, diversity of samples, and use of the latents.

    Two language models are trained: the forward model is trained on ``n`` training sentences and evaluated on
    ``n`` samples, the reverse model is trained on the samples and evaluated on the sentences of the batches.
    Call :meth:`begin`, then :meth:`update` for every batch, then :meth:`compute`, in one process only.

    Arguments are listed in :class:`lebm.callbacks.SentenceQuality`.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.evaluation.sentences import SampleQuality
        >>> SampleQuality(n=100, steps=5).protocol["language_model"]["steps"]
        5
    """

    n: int = 2000
    compared: int = 200
    steps: int = 500
    hidden: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(2, n=self.n, compared=self.compared)
        at_least(1, steps=self.steps, hidden=self.hidden)
        self.budget = Budget(steps=self.steps, hidden=self.hidden, seed=self.seed)

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings, as plain values."""
        return {"samples": self.n, "compared": self.compared, "language_model": asdict(self.budget)}

    def begin(self, model: LatentModel) -> None:
        """Discard earlier batches, and draw the samples."""
        self._samples = model.sample(self.n, generator=Noise.shards(self.seed, "sentence quality"))
        self._batches: list[tuple[Tensor, ...]] = []

    def update(self, model: LatentModel, x: Tensor, z: Tensor, index: Tensor) -> None:
        """Add a batch of sentences ``x: (B, T)`` with posterior samples ``z: (B, latent_dim)``.

        Their numbers ``index: (B,)`` key the noise of a second posterior sample.
        """
        other = model.encode(x, generator=model.sample_noise("second draw", index))
        likelihood = likelihood_of_sentences(model, "SentenceQuality").given(x)
        with torch.no_grad():
            gain = likelihood(z).double() - likelihood(z.roll(1, 0)).double()
        self._batches.append((x, z, other, gain if len(x) > 1 else gain[:0]))

    def compute(self, model: LatentModel, train: TextRows) -> dict[str, float]:
        """Train the language models, the forward one on ``train``, and discard the batches.

        Returns:
            ``forward_perplexity``, ``reverse_perplexity``, ``distinct_1``, ``distinct_2``, ``self_bleu``,
            ``active_units``, ``posterior_mean_variance`` and ``latent_nats``. ``real_distinct_1``,
            ``real_distinct_2`` and ``real_self_bleu`` are computed from an equal number of real sentences.
        """
        generator = likelihood_of_sentences(model, "SentenceQuality").generator
        size, length = generator.vocabulary_size, generator.max_length
        sentences, first, second, gains = zip(*self._batches, strict=True)
        test = torch.cat([_padded(x, length) for x in sentences])
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))[: self.n]
        learned = _padded(train.tokens(chosen.numpy()), length).to(model.device)
        # Equal numbers, because the share of distinct words falls with the number of sentences.
        compared = min(len(test), self.n)
        real = diversity(test[:compared], self.compared)
        values = {
            "forward_perplexity": language_model_perplexity(learned, self._samples, size, self.budget),
            "reverse_perplexity": language_model_perplexity(self._samples, test, size, self.budget),
            **diversity(self._samples[:compared], self.compared),
            **{f"real_{name}": value for name, value in real.items()},
            **latent_use(first, second, gains),
        }
        del self._batches, self._samples
        return values


def _padded(x: Tensor, length: int) -> Tensor:
    return pad(x, (0, length - x.shape[1]), value=PAD)


@torch.no_grad()
def text_suite(subject: SentenceSubject, settings: Settings) -> SuiteResult:
    """Measure likelihood bounds, perplexities, diversity of samples, and use of the latents."""
    model, data = subject.model.eval(), subject.data
    assert data.vocabulary is not None  # after its setup
    likelihood_of_sentences(model, "text_suite").adopt(data.vocabulary)
    chains, n, seed = max(100, settings.chains), settings.n_samples, settings.seed
    bounds = LikelihoodBounds(chains=chains, prior_levels=2 * settings.levels, seed=seed)
    quality, sizes = SampleQuality(n=n, compared=min(200, n), seed=seed), []
    bounds.begin(model)
    quality.begin(model)
    for number, batch in enumerate(data.test_dataloader()):
        batch = {name: part.to(model.device) for name, part in batch.items()}
        outputs = model.test_step(batch, number)
        bounds.update(model, outputs["x"], batch["index"])
        quality.update(model, outputs["x"], outputs["z"], batch["index"])
        sizes.append(len(outputs["x"]))
    values = {**bounds.compute(), **quality.compute(model, data.train)}
    shown = min(sum(sizes), quality.n)
    sources = {  # split and number of the values that are not of all test sentences
        "log_z": ("prior", bounds.prior_draws),
        "forward_perplexity": ("samples", quality.n),
        **dict.fromkeys(("distinct_1", "distinct_2"), ("samples", shown)),
        **dict.fromkeys(("real_distinct_1", "real_distinct_2"), ("test", shown)),
        "self_bleu": ("samples", min(shown, quality.compared)),
        "real_self_bleu": ("test", min(shown, quality.compared)),
        "latent_nats": ("test", sum(size for size in sizes if size > 1)),
    }
    protocols = {"SentenceBounds": bounds.protocol, "SentenceQuality": quality.protocol}
    result = SuiteResult({"name": "sentences", "seed": settings.seed, **protocols})
    for name, value in values.items():
        if name.endswith(("_low", "_high")):
            continue
        low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
        level, how = (None, "") if low is None else (LEVEL, "of the estimates")
        split, count = sources.get(name, ("test", sum(sizes)))
        result.figures.append(Figure(name, value, low, high, level, how, count, split))
    return result
