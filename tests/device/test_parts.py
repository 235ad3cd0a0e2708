"""Networks and metrics on the device in single precision, against the CPU in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lebm.metrics import (
    frechet_distance,
    maximum_mean_discrepancy,
    mutual_information,
    neighbour_rows,
    reconstruction_rows,
    squared_error_rows,
)
from lebm.models import (
    CategoricalLikelihood,
    ConcatenatedEnergy,
    ConvEncoder,
    ConvEnergy,
    ConvGenerator,
    GaussianChain,
    LadderEncoder,
    LadderGenerator,
    MLPEncoder,
    MLPEnergy,
    MLPGenerator,
    RecurrentGenerator,
    ResNetEnergy,
    ResNetGenerator,
    SentenceEncoder,
    TransformerGenerator,
)
from lebm.samplers import log_density_gradient
from lebm.samplers.base import state_gradient
from tests.device.same import close

LATENT, IMAGE, WORDS = (5,), (3, 8, 8), (6,)
DIMS = [2, 1, 2]
BLOCKS = [["linear 12"], ["linear 8"], ["linear 6"]]

ENERGIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLPEnergy": (lambda: MLPEnergy(5, hidden=[8, 8]), LATENT),
    "ConvEnergy": (lambda: ConvEnergy([3, 8, 8], channels=4, hidden=6), (192,)),
    "ResNetEnergy": (lambda: ResNetEnergy(IMAGE, channels=[4, 4]), IMAGE),
    "ConcatenatedEnergy": (lambda: ConcatenatedEnergy(DIMS, [8, 8], spectral_norm=True), LATENT),
}
MAPS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLPGenerator": (lambda: MLPGenerator(5, IMAGE, hidden=[8]), LATENT),
    "ConvGenerator": (lambda: ConvGenerator(5, IMAGE, channels=[8, 4]), LATENT),
    "ResNetGenerator": (lambda: ResNetGenerator(5, IMAGE, channels=[8, 4], norm="group"), LATENT),
    "LadderGenerator": (lambda: LadderGenerator(DIMS, IMAGE, [["linear 192"], *BLOCKS[1:]]), LATENT),
    "MLPEncoder": (lambda: MLPEncoder(5, IMAGE, hidden=[8]), IMAGE),
    "ConvEncoder": (lambda: ConvEncoder(5, IMAGE, channels=[4, 8]), IMAGE),
    "LadderEncoder": (lambda: LadderEncoder(DIMS, IMAGE, BLOCKS), IMAGE),
    "GaussianChain": (lambda: GaussianChain(DIMS, hidden=[8]), LATENT),
    "RecurrentGenerator": (lambda: CategoricalLikelihood(RecurrentGenerator(5, 20, 6, 4, 6)), LATENT),
    "TransformerGenerator": (lambda: CategoricalLikelihood(TransformerGenerator(5, 20, 6, 8, 1, 2)), LATENT),
    "SentenceEncoder": (lambda: SentenceEncoder(5, 20, 6, 4, 5), WORDS),
}


def built(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return make().to(device, dtype).eval()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reading() -> Tensor:
    return torch.randint(4, 20, (4, *WORDS), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_and_its_gradient(name: str, device: torch.device) -> None:
    make, event = ENERGIES[name]
    x = numbers(4, *event)
    energy, reference = built(make, device, torch.float32), built(make, torch.device("cpu"), torch.float64)
    value, gradient = log_density_gradient(energy, x.to(device, torch.float32))
    expected = log_density_gradient(reference, x)
    assert value.device.type == gradient.device.type == device.type
    close(value, expected[0], "value")
    close(gradient, expected[1], "gradient")
    close(state_gradient(energy, x.to(device, torch.float32)), expected[1], "the gradient alone")


def answer(
    name: str, network: nn.Module, device: torch.device, dtype: torch.dtype, x: Tensor
) -> list[Tensor]:
    """What the network makes of ``x``, as a list of tensors."""
    x = x if name == "SentenceEncoder" else x.to(dtype)
    x = x.to(device)
    if isinstance(network, CategoricalLikelihood):
        words = reading().to(device)
        return [network.log_prob(words, x), network.given(words)(x)]
    if isinstance(network, GaussianChain):
        return [network.log_density(x)]
    found = network(x)
    return [found.mean, found.log_scale] if hasattr(found, "log_scale") else [found]


@pytest.mark.parametrize("name", MAPS)
def test_a_network(name: str, device: torch.device) -> None:
    make, event = MAPS[name]
    x = reading() if name == "SentenceEncoder" else numbers(4, *event)
    cpu = torch.device("cpu")
    found = answer(name, built(make, device, torch.float32), device, torch.float32, x)
    expected = answer(name, built(make, cpu, torch.float64), cpu, torch.float64, x)
    for value, other in zip(found, expected, strict=True):
        assert (value.device.type, value.dtype) == (device.type, torch.float32)
        close(value, other, name)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=0), x.T.cov()


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor | dict[str, Tensor]]] = {
    "frechet_distance": lambda a, b: frechet_distance(*moments(a), *moments(b)),
    "maximum_mean_discrepancy": maximum_mean_discrepancy,
    "mutual_information": lambda a, b: mutual_information(
        (a[:, 0] > 0).long(), (a[:, 0] + b[:, 0] > 0).long()
    ),
    "neighbour_rows": neighbour_rows,
    "squared_error_rows": squared_error_rows,
    "reconstruction_rows": lambda a, b: reconstruction_rows(
        a.reshape(-1, 1, 2, 3).tanh(), b.reshape(-1, 1, 2, 3).tanh()
    ),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric(name: str, device: torch.device) -> None:
    a, b = numbers(40, 6), 0.8 * numbers(40, 6, seed=2) + 0.3
    found = METRICS[name](a.to(device, torch.float32), b.to(device, torch.float32))
    expected = METRICS[name](a, b)
    if isinstance(found, Tensor):
        found, expected = {name: found}, {name: expected}  # type: ignore[dict-item]
    assert isinstance(expected, dict)
    for key, value in found.items():
        assert value.device.type == device.type, key
        close(value.float(), expected[key], key)
