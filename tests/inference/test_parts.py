"""Where latents of data come from: values, and which of them carry gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lebm.inference import Frozen, Inferred, ShortRun, Variational
from lebm.models import MLPEncoder
from lebm.samplers import Langevin, Noise


def encoder() -> MLPEncoder:
    torch.manual_seed(0)
    return MLPEncoder(2, [1, 3, 3], hidden=[5]).double()


def data() -> Tensor:
    return torch.randn(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def no_chain(*_: object) -> Tensor:
    raise AssertionError("an encoder needs no chain")


def noise() -> Noise:
    return Noise.shards("test", shards=2)


def test_a_variational_draw_is_reparameterised() -> None:
    network, x = encoder(), data()
    found = Variational(network).infer(x, no_chain, noise())
    q = network(x)
    epsilon = noise().normal((6, 2), dtype=torch.float64, device=x.device)
    torch.testing.assert_close(found.z, q.mean + q.log_scale.exp() * epsilon, rtol=1e-14, atol=1e-14)
    found.z.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_frozen_draw_has_the_same_value_and_no_gradient() -> None:
    network, x = encoder(), data()
    frozen = Frozen(network).infer(x, no_chain, noise())
    assert torch.equal(frozen.z, Variational(network).infer(x, no_chain, noise()).z)
    assert not frozen.z.requires_grad
    assert frozen.q is None


def test_a_short_run_is_the_chain_of_its_own_sampler() -> None:
    sampler, asked = Langevin(3, 0.1), []

    def posterior(used: Langevin, source: Noise) -> Tensor:
        asked.append(used)
        return used(lambda z: -0.5 * z.square().sum(1), torch.zeros(6, 2), source)

    found = ShortRun(sampler).infer(data(), posterior, noise())
    assert asked == [sampler]
    assert torch.equal(found.z, sampler(lambda z: -0.5 * z.square().sum(1), torch.zeros(6, 2), noise()))
    assert found.q is None


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_weight_scales_the_gradient_and_keeps_the_value(weight: float) -> None:
    network, x = encoder(), data()

    def gradient(found: Inferred) -> Tensor:
        assert found.q is not None
        loss = found.z.square().sum() + found.q.mean.sum() + found.q.log_scale.sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

    part = Variational(network)
    whole, weighted = (part.infer(x, no_chain, noise()) for _ in range(2))
    torch.testing.assert_close(weighted.weighted(weight).z, whole.z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        gradient(weighted.weighted(weight)), weight * gradient(whole), rtol=1e-12, atol=1e-12
    )


def test_detached_latents_have_nothing_to_weigh() -> None:
    found = Frozen(encoder()).infer(data(), no_chain, noise())
    assert found.weighted(0.5) is found
