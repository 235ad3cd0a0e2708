"""Maximum likelihood with short-run Langevin from prior and posterior (paper 1).

L = -log p(x | z+) + E(z+) - E(z-),    z+ from p(z | x),  z- from p(z) ~ exp(-E(z)) p0(z)
"""

from collections.abc import Mapping

from torch import Tensor

from lebm.estimators.prior_model import PriorModel


class LatentMLE(PriorModel):
    r"""Pang, Han, Nijkamp, Zhu, Wu: *Learning Latent Space Energy-Based Prior Model*, NeurIPS 2020.

    ``z+`` comes from the posterior and ``z-`` from the prior, in the paper by short Langevin chains from N(0,
    I). Both are detached, so

    .. math:: L = -\log p_\beta(x \mid z^+) + E_\alpha(z^+) - E_\alpha(z^-)

    has the gradients of eqs. 9 and 10 for generator and energy. With a :class:`~lebm.models.StandardNormal`
    prior the last two terms vanish, and the method is alternating back-propagation.

    :class:`~lebm.inference.Variational` inference adds ``KL(q || p0)`` and passes the gradients of the loss
    through ``z+`` to the encoder. With exact ``z-``, the loss bounds the negative log-likelihood from above.
    :class:`~lebm.inference.Taught` inference adds ``-log q(z+ | x)`` for the encoder alone.

    Arguments are listed in :class:`~lebm.estimators.PriorModel`. The released SVHN script has a
    ``prior_sampler`` of 60 steps of 0.4 and a ``posterior_sampler`` of 20 steps of 0.1. The trained networks
    are ``generator``, ``energy`` and ``encoder``.

    Example:
        >>> from lebm.estimators import LatentMLE
        >>> from lebm.estimators import AdamGroups
        >>> from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
        >>> from lebm.samplers import Langevin
        >>> model = LatentMLE(
        ...     GaussianLikelihood(MLPGenerator(2, [1, 4, 4], hidden=[8]), sigma=0.3),
        ...     EnergyPrior(MLPEnergy(2, hidden=[8])),
        ...     prior_sampler=Langevin(60, 0.4),
        ...     posterior_sampler=Langevin(20, 0.1),
        ...     optimizer=AdamGroups({"generator": 1e-3, "energy": 1e-4}),
        ... )
        >>> x = model.sample(3)
        >>> x.shape, model.encode(x).shape, model.anomaly_score(x).shape
        (torch.Size([3, 1, 4, 4]), torch.Size([3, 2]), torch.Size([3]))
    """

    def loss(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        data, loss = self.data_terms(batch, batch_idx)
        if self.prior.is_exact:
            return loss
        loss = loss + self.label_loss(data.z, batch)
        return loss + self.energy_gap(data.z, self.negatives(len(data.z), batch_idx))
