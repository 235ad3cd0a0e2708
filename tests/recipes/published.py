"""Networks and chains that recipes have from the papers and releases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Published:
    """What the networks and chains of a recipe must be.

    The energies have one parameter less than the published ones, the constant, which no contrast can learn.
    """

    image: tuple[int, int, int]
    latent_dim: int
    generator: int
    energy: int
    prior: tuple[int, float]
    posterior: tuple[int, float]
    sigma: float
    batch_size: int


def linear(*widths: int) -> int:
    """Parameters of fully connected layers with biases."""
    return sum((before + 1) * after for before, after in pairwise(widths))


def transposed(latent_dim: int, start: int, *channels: int, last: int = 4) -> int:
    """Parameters of transposed convolutions with biases: kernel ``start``, then 4, then ``last``."""
    kernels = [start, *[4] * (len(channels) - 2), last]
    inputs = [latent_dim, *channels[:-1]]
    return sum(
        (before * kernel**2 + 1) * after
        for before, after, kernel in zip(inputs, channels, kernels, strict=True)
    )


def fully_connected(latent_dim: int) -> Published:
    """Our own MNIST networks; the chains are the published ones."""
    widths = linear(latent_dim, 400, 400, 784), linear(latent_dim, 200, 200, 1) - 1
    return Published((1, 28, 28), latent_dim, *widths, (60, 0.4), (20, 0.1), 0.3, 100)


MNIST = fully_connected(8)
PUBLISHED = {
    "latent_mle/mnist_published": MNIST,
    "latent_mle/mnist_anomaly_published": MNIST,
    "latent_mle/fashion_mnist": Published(
        (1, 28, 28),
        32,
        transposed(32, 7, 1024, 512, 256, 1, last=3),
        linear(32, 200, 200, 1) - 1,
        (60, 0.4),
        (20, 0.1),
        0.3,
        100,
    ),
    "latent_mle/svhn": Published((3, 32, 32), 100, 3_447_683, 60_601 - 1, (60, 0.4), (20, 0.1), 0.3, 100),
    "latent_mle/cifar10": Published((3, 32, 32), 128, 18_883_075, 66_201 - 1, (60, 0.4), (40, 0.1), 0.3, 100),
    "latent_mle/celeba64": Published(
        (3, 64, 64), 100, 12_656_515, 60_601 - 1, (40, 0.4), (20, 0.1), 0.3, 100
    ),
    "latent_mle/celeba128": Published(
        (3, 128, 128),
        100,
        transposed(100, 4, 2048, 1024, 512, 256, 128, 3),
        linear(100, 1000, 1000, 1) - 1,
        (80, 0.4),
        (40, 0.1),
        0.3,
        400,
    ),
    "latent_mle/celebahq256": Published(
        (3, 256, 256),
        128,
        transposed(128, 4, 2048, 1024, 512, 512, 256, 128, 3),
        66_201 - 1,
        (80, 0.4),
        (40, 0.1),
        1.0,
        64,
    ),
}
# Stage after stage with the same networks and chains; here the constant of an energy is learned too.
STAGED = {name: f"latent_mle/{name}" for name in ("svhn", "cifar10", "celeba64", "celebahq256")}
STAGED |= {
    "mnist_published": "latent_mle/mnist_published",
    "mnist_anomaly": "latent_mle/mnist_anomaly_published",
}
PUBLISHED |= {
    f"multistage_nce/{name}": replace(PUBLISHED[twin], energy=PUBLISHED[twin].energy + 1)
    for name, twin in STAGED.items()
}
