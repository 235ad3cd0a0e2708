"""How much of the class a representation holds: the accuracy of a small classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["classify"]


def classify(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    hidden: int = 256,
    epochs: int = 20,
    batch_size: int = 500,
    lr: float = 3e-3,
    seed: int = 0,
) -> float:
    """Train Linear-ReLU-Linear on features by cross-entropy, and return its accuracy on test features.

    The mean and standard deviation of the training part standardise all features. Adam's learning rate falls
    to zero along a cosine. Torch's default generator does not change.

    Args:
        train: features ``(N, d)`` and labels ``(N,)`` from 0.
        test: features and labels for the accuracy.
        hidden: width.
        epochs: passes over the training part.
        batch_size: rows per step.
        lr: Adam's learning rate at the start.
        seed: of weights and order.

    Returns:
        Share of right answers, in [0, 1].

    Raises:
        ValueError: if a part is empty, or features and labels differ in number.

    Example:
        >>> import torch
        >>> from lebm.metrics import classify
        >>> labels = torch.arange(100) % 2
        >>> features = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 10 * labels[:, None]
        >>> classify((features, labels), (features, labels))
        1.0
    """
    for features, labels in (train, test):
        if not len(features) or len(features) != len(labels):
            raise ValueError(
                f"a classifier needs as many labels as features, at least one, not {len(labels)} for"
                f" {len(features)}"
            )
    x, y = train[0].detach().float(), train[1].to(train[0].device)
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6)
    x = (x - mean) / scale
    classes = int(max(y.max(), test[1].max())) + 1
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, classes)).to(x.device)
        x, steps = x.clone(), epochs * math.ceil(len(x) / batch_size)
        optimizer = torch.optim.Adam(net.parameters(), lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).to(x.device).split(batch_size):
                optimizer.zero_grad()
                cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
    with torch.no_grad():
        answers = net((test[0].detach().float() - mean) / scale).argmax(dim=1)
    return float((answers == test[1].to(answers.device)).double().mean())
