"""A small classifier on latents, which is fitted in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lebm.component import Component
from lebm.errors import at_least

_BATCH = 500


class LatentClassifier(nn.Module, Component):
    """A classifier with one hidden layer that maps latents ``(B, latent_dim)`` to logits ``(B, classes)``.

    Args:
        latent_dim: number of latent coordinates.
        classes: number of classes, at least 2.
        hidden: width of the hidden layer.

    Raises:
        ValueError: for fewer than two classes.

    Example:
        >>> import torch
        >>> from lebm.models import LatentClassifier
        >>> labels = torch.arange(100) % 2
        >>> z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 10 * labels[:, None]
        >>> classifier = LatentClassifier.fit(z, labels)
        >>> float((classifier(z).argmax(dim=1) == labels).float().mean())
        1.0
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int, classes: int, hidden: int = 256) -> None:
        super().__init__()
        at_least(2, classes=classes)
        self.latent_dim = latent_dim
        self.classes = classes
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))
        self.net = nn.Sequential(nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, z: Tensor) -> Tensor:
        return self.net((z - self.mean) / self.scale)

    @classmethod
    def fit(
        cls,
        z: Tensor,
        labels: Tensor,
        *,
        classes: int | None = None,
        hidden: int = 256,
        epochs: int = 20,
        seed: int = 0,
    ) -> LatentClassifier:
        """Fit a classifier by cross-entropy, with Adam on batches of 500 rows.

        The learning rate falls from 0.003 to zero along a cosine. The default generator of torch is not used.

        Args:
            z: latents or other features ``(N, latent_dim)``.
            labels: ``(N,)`` of ``long``, from 0; a row with the label -1 is left out.
            classes: number of classes, at least 2; one more than the largest label if ``None``.
            hidden: width of the hidden layer.
            epochs: passes over the rows.
            seed: seed of the weights and of the order of rows.

        Raises:
            ValueError: without rows, if the numbers of labels and rows differ, or for fewer than two classes.
        """
        if len(z) != len(labels) or not (labels >= 0).any():
            raise ValueError(f"needs as many labels as features, at least 1, not {len(labels)} for {len(z)}")
        known = (labels >= 0).to(z.device)
        x, y = z.detach().float()[known], labels.to(z.device)[known].long()
        classes = int(y.max()) + 1 if classes is None else classes
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            made = cls(x.shape[1], classes, hidden).to(x.device)
            made.mean, made.scale = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6)
            x, steps = ((x - made.mean) / made.scale).clone(), epochs * math.ceil(len(x) / _BATCH)
            optimizer = torch.optim.Adam(made.net.parameters(), 3e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).to(x.device).split(_BATCH):
                    optimizer.zero_grad()
                    cross_entropy(made.net(x[rows]), y[rows]).backward()
                    optimizer.step()
                    schedule.step()
        return made.requires_grad_(False).eval()
