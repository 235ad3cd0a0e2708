"""Energies: one number a sample, and what a constant in them does."""

import pytest
import torch
from torch import nn

from lebm.models import ClassEnergy, EnergyPrior, MLPEnergy


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_one_number_a_sample(batch: int) -> None:
    energy = MLPEnergy(5, [16, 16])
    assert energy(torch.randn(batch, 5)).shape == (batch,)


def test_mlp_energy_is_the_plain_network() -> None:
    energy = MLPEnergy(5, [16, 8], activation="gelu")
    first, second, third = (layer for layer in energy.net if isinstance(layer, nn.Linear))
    assert third.bias is None
    z = torch.randn(3, 5)
    expected = (
        nn.functional.gelu(
            nn.functional.gelu(z @ first.weight.T + first.bias) @ second.weight.T + second.bias
        )
        @ third.weight[0]
    )
    torch.testing.assert_close(energy(z), expected)


def test_published_size_is_met_but_for_the_constant() -> None:
    assert sum(p.numel() for p in MLPEnergy(100, output_bias=True).parameters()) == 60_601
    assert sum(p.numel() for p in MLPEnergy(100).parameters()) == 60_600
    assert sum(p.numel() for p in MLPEnergy(128, output_bias=True).parameters()) == 66_201


def test_output_bias_gets_exactly_no_gradient_in_a_contrast() -> None:
    torch.manual_seed(0)
    energy = MLPEnergy(5, [16], output_bias=True)
    positives, negatives = torch.randn(64, 5) + 1, torch.randn(64, 5)
    (energy(positives).mean() - energy(negatives).mean()).backward()
    last = energy.net[-1]
    assert last.bias.grad.item() == 0.0
    assert last.weight.grad.abs().max() > 1e-3, "the weights beside it do learn"


def test_rows_do_not_see_each_other() -> None:
    energy = MLPEnergy(5, [16]).double()
    z = torch.randn(4, 5, dtype=torch.float64)
    jacobian = torch.func.jacrev(energy)(z)
    for row in range(4):
        others = [other for other in range(4) if other != row]
        assert (jacobian[row, others] == 0).all()
        assert (jacobian[row, row] != 0).any()


def test_spectral_norm_bounds_the_slope() -> None:
    torch.manual_seed(1)
    energy = MLPEnergy(6, [32, 32], activation="leaky_relu", spectral_norm=True)
    for _ in range(50):
        energy(torch.randn(8, 6))  # power iterations happen in training mode
    energy.eval()
    slope = torch.func.grad(lambda z: energy(z).sum())(torch.randn(200, 6)).norm(dim=1)
    assert slope.max() <= 1 + 1e-3


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MLPEnergy(0)
    with pytest.raises(ValueError, match="activation must be one of"):
        MLPEnergy(3, activation="sine")


def _quadratic_classes() -> ClassEnergy:
    """``f_y(z) = b_y + a_y z``: linear in z, so that every ``p(z | y)`` is a Gaussian of variance 1."""
    energy = ClassEnergy(1, 3, hidden=[]).double()
    with torch.no_grad():
        energy.net[0].weight.copy_(torch.tensor([[-2.0], [0.5], [3.0]]))
        energy.net[0].bias.copy_(torch.tensor([0.2, -1.0, -3.0]))
    return energy


def test_an_energy_with_classes_is_a_mixture_of_gaussians_in_closed_form() -> None:
    """``exp(b + a z) N(z; 0, 1) = exp(b + a^2 / 2) N(z; a, 1)``."""
    energy = _quadratic_classes()
    a, b = energy.net[0].weight[:, 0].detach(), energy.net[0].bias.detach()
    z = torch.linspace(-3, 4, 15, dtype=torch.float64)[:, None]
    parts = b + a.square() / 2 + torch.distributions.Normal(a, 1.0).log_prob(z)
    density = EnergyPrior(energy).log_density(z)
    torch.testing.assert_close(density, parts.logsumexp(dim=1))
    torch.testing.assert_close(energy.logits(z).softmax(dim=1), parts.softmax(dim=1))
    torch.testing.assert_close((density + energy(z))[:, None] + energy.logits(z), parts)


def test_an_energy_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="needs classes >= 2 and label_weight >= 0, not 1"):
        ClassEnergy(2, 1)
