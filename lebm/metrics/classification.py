"""Metrics of a representation: accuracy of a classifier, disentanglement, and robustness to attacks."""

from collections.abc import Callable

import torch
from torch import Tensor

from lebm.models.classifier import LatentClassifier
from lebm.models.encoders import DiagonalGaussian
from lebm.models.hierarchical import LatentLayout


def classify(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    hidden: int = 256,
    epochs: int = 20,
    seed: int = 0,
) -> float:
    """Fit a :class:`~lebm.models.LatentClassifier` to features, and return its test accuracy, in [0, 1].

    Args:
        train: features ``(N, d)`` and labels ``(N,)`` from 0.
        test: features and labels for the accuracy, at least one.
        hidden: width of the hidden layer.
        epochs: passes over the training part.
        seed: seed of the weights and of the order of rows.

    Raises:
        ValueError: if there are no training features, or their number differs from the number of labels.

    Example:
        >>> import torch
        >>> from lebm.metrics import classify
        >>> labels = torch.arange(100) % 2
        >>> features = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 10 * labels[:, None]
        >>> classify((features, labels), (features, labels))
        1.0
    """
    classes = max(2, 1 + int(max(train[1].max(), test[1].max()))) if len(train[1]) else None
    net = LatentClassifier.fit(*train, classes=classes, hidden=hidden, epochs=epochs, seed=seed)
    with torch.no_grad():
        answers = net(test[0].detach().float()).argmax(dim=1)
    return float((answers == test[1].to(answers.device)).double().mean())


def latent_attack(
    encoder: Callable[[Tensor], DiagonalGaussian],
    x: Tensor,
    target: Tensor,
    layout: LatentLayout,
    layer: int,
    *,
    radius: float = 0.2,
    steps: int = 50,
) -> Tensor:
    r"""Change images a little, so that the encoder infers the latents of other images.

    .. math:: \min_{\tilde x} KL(q(z_i|\tilde x) \| q(z_i|x_t)), \qquad |\tilde x - x|_\infty \le r

    The method is projected descent along the sign of the gradient, with steps of ``2.5 * radius / steps``.

    Args:
        encoder: encoder ``(B, *x) -> DiagonalGaussian``.
        x: images ``(B, *x)`` in [-1, 1].
        target: other images :math:`x_t`, ``(B, *x)``.
        layout: layers of the latent.
        layer: attacked layer, 0 nearest to the data.
        radius: largest change r of a pixel, in the units of ``x``.
        steps: number of gradient steps.

    Returns:
        Attacked images in [-1, 1], within ``radius`` of ``x``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, target = x.clone(), target.clone()  # inference tensors have no gradients
        with torch.no_grad():
            wanted = encoder(target)
        attacked = x
        for _ in range(steps):
            state = attacked.detach().requires_grad_(True)
            divergence = layout.sums(encoder(state).divergences(wanted))[:, layer]
            (slope,) = torch.autograd.grad(divergence.sum(), state)
            moved = attacked.detach() - 2.5 * radius / steps * slope.sign()
            attacked = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(-1, 1)
    return attacked


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Return the mutual information of two discrete variables, both ``(N,)`` of ``long`` from 0, in nats.

    Example:
        >>> import torch
        >>> from lebm.metrics import mutual_information
        >>> a = torch.arange(100) % 2
        >>> mutual_information(a, a), mutual_information(a, torch.zeros_like(a))  # log 2 and 0
        (tensor(0.6931, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    counts = torch.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns).double()
    joint = counts / counts.sum()
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / independent.clamp_min(1e-300)).log(), 0.0).sum()


def mutual_information_gap(codes: Tensor, factors: Tensor) -> tuple[float, float | None]:
    """Return MIG (Chen et al. 2018) and MIG-sup (Li et al. 2020), each in [0, 1].

    The mutual information of a coordinate and a factor is divided by the factor's entropy. MIG is the gap
    between the two largest values of each factor, averaged over factors, which is high if one coordinate
    alone encodes each factor. MIG-sup is the gap between the two largest values of each coordinate, averaged
    over coordinates, which is high if each coordinate encodes a single factor.

    Args:
        codes: latents ``(N, d)``, d at least 2. Each coordinate is divided into 20 bins of equal width.
        factors: factors ``(N, K)`` of ``long``, from 0, each with at least two values.

    Returns:
        MIG, and MIG-sup or ``None`` for a single factor.

    Raises:
        ValueError: for fewer than two coordinates, or a factor that never varies.

    Example:
        >>> import torch
        >>> from lebm.metrics import mutual_information_gap
        >>> factors = torch.stack([torch.arange(400) % 2, torch.arange(400) // 2 % 2], dim=1)
        >>> [round(gap, 3) for gap in mutual_information_gap(factors.float(), factors)]
        [1.0, 1.0]
    """
    if codes.shape[1] < 2:
        raise ValueError("a mutual information gap needs at least two coordinates")
    low, high = codes.amin(dim=0), codes.amax(dim=0)
    binned = ((codes - low) / (high - low).clamp_min(1e-12) * 20).long().clamp_max(19)
    entropies = torch.stack([mutual_information(factor, factor) for factor in factors.T])
    if bool((entropies <= 0).any()):
        raise ValueError(f"factor {int(entropies.argmin())} never varies")
    shared = [torch.stack([mutual_information(code, factor) for factor in factors.T]) for code in binned.T]
    table = torch.stack(shared) / entropies
    best = table.topk(2, dim=0).values
    gap = float((best[0] - best[1]).mean())
    if factors.shape[1] < 2:
        return gap, None
    best = table.topk(2, dim=1).values
    return gap, float((best[:, 0] - best[:, 1]).mean())
