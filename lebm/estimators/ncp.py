"""The one-classifier baseline: a contrastive prior fitted to the aggregate posterior of a trained model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lebm.density_ratio.classifiers import Training, logistic
from lebm.estimators.multistage_nce import MultiStageNCE
from lebm.estimators.optim import AdamGroups
from lebm.estimators.stages import FixedStages
from lebm.models.energies import MLPEnergy
from lebm.models.likelihoods import Likelihood
from lebm.models.ratios import RatioPrior, RatioProduct
from lebm.samplers.base import Sampler
from lebm.samplers.importance import SamplingImportanceResampling
from lebm.samplers.noise import RandomSource

__all__ = ["noise_contrastive_prior"]


def noise_contrastive_prior(
    likelihood: Likelihood,
    latents: Tensor,
    network: MLPEnergy,
    posterior_sampler: Sampler,
    training: Training = Training(),  # noqa: B008
    candidates: int = 5000,
    generator: RandomSource = None,
) -> tuple[MultiStageNCE, float]:
    """Fit ``p(z) ∝ p0(z) r(z)`` to samples of an aggregate posterior by one classifier.

    This is the noise contrastive prior of Aneja, Schwing, Kautz & Vahdat 2021. The generator comes from a
    trained model, for example a variational autoencoder, and ``latents`` are encodings of its training data.
    The new model has a frozen copy of the generator, and samples the prior by importance resampling of N(0,
    I), which needs a large effective number of candidates.

    Args:
        likelihood: likelihood of the trained model.
        latents: samples of its aggregate posterior, ``(N, d)``, in random order.
        network: the classifier, with an output bias.
        posterior_sampler: sampler for encodings under the new prior.
        training: settings of the training of the classifier.
        candidates: number of samples of N(0, I) from which one sample of the prior is chosen, at least 2.
        generator: source of randomness.

    Returns:
        A model of one finished stage for evaluation, and the effective number of candidates.

    Raises:
        ValueError: if sizes disagree, or for too few latents to split.
    """
    if latents.dim() != 2 or latents.shape[1] != likelihood.latent_dim:
        raise ValueError(
            f"latents must be (N, {likelihood.latent_dim}) for this likelihood, not {tuple(latents.shape)}"
        )
    prior = RatioPrior(RatioProduct(network, max_stages=1)).to(latents)

    def exact(n: int, source: RandomSource) -> Tensor:
        return prior.reference(n, source)

    logistic(latents, exact, prior.tilt.active, training, generator)
    prior.tilt.switch()
    resampling = SamplingImportanceResampling(candidates, shared_target=True)
    optimizer = AdamGroups({"energy": training.lr})
    stages = FixedStages(training.steps)
    own = copy.deepcopy(likelihood)  # a copy, because the model freezes it
    model = MultiStageNCE(
        own, prior, resampling, posterior_sampler, optimizer, stages, update_generator_in_stage=False
    )
    model.stages.ended = True
    _, info = resampling.run(prior.target(), exact(32, generator), generator)
    return model, float(torch.mean(info.extra["ess"]))
