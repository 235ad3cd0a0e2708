"""The gradient written out is the gradient of autograd, to the last bit, and steps aside wherever it would
not be.
"""

import pytest
import torch
from torch import nn

from lebm.models import EnergyPrior, MLPEnergy
from lebm.models.energies import input_gradient
from lebm.models.layers import _ACTIVATIONS, mlp
from lebm.samplers import Langevin


def by_autograd(module: nn.Module, z: torch.Tensor) -> torch.Tensor:
    z = z.clone().requires_grad_(True)
    return torch.autograd.grad(module(z).sum(), z)[0]


@pytest.mark.parametrize("name", sorted(_ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_autograd_s_to_the_last_bit(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = mlp([5, 16, 12, 1], name).to(dtype)
    z = 3 * torch.randn(40, 5, dtype=dtype)
    found = input_gradient(net, z)
    assert found is not None
    assert not found.requires_grad
    assert torch.equal(found, by_autograd(net, z))
    assert all(parameter.grad is None for parameter in net.parameters())


def hooked(net: nn.Sequential) -> nn.Sequential:
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


@pytest.mark.parametrize(
    "net",
    [
        mlp([3, 8, 1], "gelu", spectral_norm=True),
        hooked(mlp([3, 8, 1], "gelu")),
        nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 1)),
        mlp([3, 8, 1], "gelu").to(torch.bfloat16),
    ],
    ids=["spectral norm", "hook", "in place", "unknown layer", "another type"],
)
def test_it_steps_aside(net: nn.Sequential) -> None:
    assert input_gradient(net, torch.randn(4, 3)) is None


def test_it_steps_aside_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert input_gradient(mlp([3, 8, 1], "gelu"), torch.randn(4, 3)) is None


def test_an_energy_with_a_forward_of_its_own_is_differentiated_as_it_is() -> None:
    class Doubled(MLPEnergy):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(z)

    energy = Doubled(3, hidden=[8])
    z = torch.randn(6, 3)
    torch.testing.assert_close(energy.state_gradient(z), by_autograd(energy, z))
    torch.testing.assert_close(EnergyPrior(energy).target().state_gradient(z), -by_autograd(energy, z) - z)


def test_a_chain_of_a_prior_follows_it() -> None:
    torch.manual_seed(1)
    prior = EnergyPrior(MLPEnergy(4, hidden=[16, 16]).double())
    start = torch.randn(32, 4, dtype=torch.float64)
    plain = lambda z: prior.log_density(z)  # noqa: E731
    ends = [
        Langevin(20, 0.3)(density, start, torch.Generator().manual_seed(2))
        for density in (prior.target(), plain)
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)
