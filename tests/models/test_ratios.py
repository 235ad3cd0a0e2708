"""The batched product of stages against separate networks."""

from __future__ import annotations

import copy

import pytest
import torch

from lebm.models import MLPEnergy, RatioPrior, RatioProduct
from lebm.samplers import Langevin, LogZ


def trained_like(product: RatioProduct, seed: int) -> None:
    """Give the stage in training some weights, as an optimiser would."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in product.active.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))


def product_of(stages: int, max_stages: int = 5, hidden=(16, 12), dim: int = 6, activation: str = "gelu"):
    torch.manual_seed(0)
    product = RatioProduct(MLPEnergy(dim, hidden, activation, output_bias=True), max_stages).double()
    networks = []
    for stage in range(stages):
        trained_like(product, stage)
        networks.append(copy.deepcopy(product.active))
        product.switch()
    return product, networks


@pytest.mark.parametrize("hidden", [(), (16,), (16, 12), (8, 8, 8)])
@pytest.mark.parametrize("activation", ["gelu", "leaky_relu", "tanh"])
def test_equals_separate_networks(hidden, activation):
    product, networks = product_of(3, hidden=hidden, activation=activation)
    trained_like(product, 99)
    z = torch.randn(7, 6, dtype=torch.float64)
    torch.testing.assert_close(product.stages(z), torch.stack([network(z) for network in networks]))
    torch.testing.assert_close(product.so_far(z), sum(network(z) for network in networks))
    torch.testing.assert_close(product(z), sum(network(z) for network in networks) + product.active(z))


def test_stages_in_groups_equal_stages_together(monkeypatch):
    product, networks = product_of(5)
    z = torch.randn(7, 6, dtype=torch.float64)
    monkeypatch.setattr("lebm.models.ratios.CACHED_NUMBERS", 2 * 7 * 16)
    torch.testing.assert_close(product.stages(z), torch.stack([network(z) for network in networks]))
    assert product.stages(z, 3).shape == (3, 7)


def test_a_switch_leaves_the_product_unchanged_and_the_next_ratio_one():
    product, _ = product_of(2)
    trained_like(product, 7)
    z = torch.randn(5, 6, dtype=torch.float64)
    before, body = product(z), product.active.net[0].weight.clone()
    assert not product.active_is_one
    product.switch()
    torch.testing.assert_close(product(z), before)
    assert product.active_is_one
    assert torch.equal(product.active(z), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(product.active.net[0].weight, body)
    assert product.finished == 3
    parameters = {id(parameter) for parameter in product.parameters()}
    assert parameters == {id(parameter) for parameter in product.active.parameters()}


def test_cold_start_draws_new_layers_from_its_own_seed():
    first, second = product_of(1)[0], product_of(1)[0]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first.switch(warm_start=False, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second.switch(warm_start=False, seed=3)
    assert torch.equal(first.active.net[0].weight, second.active.net[0].weight)
    assert not torch.equal(first.active.net[0].weight, product_of(2)[0].active.net[0].weight)


def test_complete_product_ignores_the_active_network():
    product, networks = product_of(2, max_stages=2)
    assert product.complete
    trained_like(product, 3)
    z = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(product(z), sum(network(z) for network in networks))
    with pytest.raises(ValueError, match="all 2 stages are used"):
        product.switch()


def test_state_dict_brings_the_number_of_stages_along(tmp_path):
    prior, _ = RatioPrior(product_of(3)[0]), None
    prior.constants[3] = LogZ(*torch.tensor([-0.5, -0.6, -0.4, 50.0], dtype=torch.float64))
    torch.save(prior.state_dict(), tmp_path / "prior.pt")
    other = RatioPrior(product_of(0)[0])
    other.load_state_dict(torch.load(tmp_path / "prior.pt", weights_only=True))
    z = torch.randn(4, 6, dtype=torch.float64)
    assert other.tilt.finished == 3
    assert torch.equal(other.log_prob(z), prior.log_prob(z))
    assert copy.deepcopy(other).log_constant() == prior.constants[3]


def test_works_under_function_transforms():
    product, _ = product_of(3)
    z = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(product.so_far(z).sum(), z)
    torch.testing.assert_close(
        torch.func.grad(lambda state: product.so_far(state).sum())(z.detach()), expected
    )
    one_by_one = torch.func.vmap(torch.func.grad(lambda row: product.so_far(row.unsqueeze(0)).squeeze()))(
        z.detach()
    )
    torch.testing.assert_close(one_by_one, expected)


@pytest.mark.slow
def test_compiled_chain_equals_eager_before_and_after_a_switch():
    prior = RatioPrior(product_of(1)[0].float())
    eager, compiled = Langevin(20, 0.3), Langevin(20, 0.3, compile=True)
    for _ in range(2):
        start = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
        ends = [
            chain(prior.log_density_so_far(), start, torch.Generator().manual_seed(2))
            for chain in (eager, compiled)
        ]
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-5)
        trained_like(prior.tilt, 4)
        prior.tilt.switch()


def test_log_prob_is_normalised_by_the_stored_constant():
    """A linear ratio exp(a'z + c) has Z = exp(|a|^2/2 + c), and tilts N(0, I) into N(a, I)."""
    product = RatioProduct(MLPEnergy(3, [], output_bias=True), max_stages=2).double()
    prior = RatioPrior(product)
    z = torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(z), prior.base.log_density(z))  # no stage: the reference itself
    a, c = torch.tensor([[0.5, -1.0, 0.2]], dtype=torch.float64), 0.7
    with torch.no_grad():
        product.active.net[0].weight.copy_(-a)
        product.active.net[0].bias.fill_(-c)
    with pytest.raises(ValueError, match="stage 1 is in training"):
        prior.log_prob(z)
    product.switch()
    with pytest.raises(ValueError, match="has not been estimated"):
        prior.log_prob(z)
    log_z = a.square().sum().item() / 2 + c
    prior.constants[1] = LogZ(*torch.tensor([log_z, log_z, log_z, torch.inf], dtype=torch.float64))
    shifted = torch.distributions.Normal(a, torch.ones_like(a)).log_prob(z).sum(1)
    torch.testing.assert_close(prior.log_prob(z), shifted)
    torch.testing.assert_close(prior.log_density(z), shifted + log_z)


def test_wrong_networks_are_refused():
    with pytest.raises(ValueError, match="the layers of an MLPEnergy, not of a Linear"):
        RatioProduct(torch.nn.Linear(3, 1))
    with pytest.raises(ValueError, match="output_bias=True"):
        RatioProduct(MLPEnergy(3))
    with pytest.raises(ValueError, match="spectral norm"):
        RatioProduct(MLPEnergy(3, output_bias=True, spectral_norm=True))
    with pytest.raises(ValueError, match="max_stages must be at least 1"):
        RatioProduct(MLPEnergy(3, output_bias=True), max_stages=0)
