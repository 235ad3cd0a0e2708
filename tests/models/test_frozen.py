"""Networks inside a chain: no buffer changes, and everything is put back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from lebm.models import frozen


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_buffers_stay_and_modes_come_back(batch_statistics):
    net, x = network(), torch.randn(8, 3)
    net[3].eval()
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    with frozen(net, batch_statistics=batch_statistics):
        assert torch.equal(net(x), net(x)), "dropout is off, and the norm's vector stands still"
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [module.training for module in net.modules()] == modes
    assert net[1].track_running_stats
    net(x)
    assert net[1].num_batches_tracked == 1
    assert not torch.equal(
        net.state_dict()["0.parametrizations.weight.0._u"], before["0.parametrizations.weight.0._u"]
    )


def test_which_statistics_are_used():
    net, x = nn.BatchNorm1d(2), torch.randn(50, 2) * 3 + 1
    with frozen(net):
        torch.testing.assert_close(net(x), x / (1 + net.eps) ** 0.5)
    with frozen(net, batch_statistics=True):
        torch.testing.assert_close(net(x), (x - x.mean(0)) / (x.var(0, unbiased=False) + net.eps).sqrt())


def test_modes_come_back_after_an_error_and_weights_are_not_kept():
    net = network()
    with pytest.raises(RuntimeError, match="oops"), frozen(net):
        raise RuntimeError("oops")
    assert net.training
    weight = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].parametrizations.weight.original.mul_(-1)
    torch.testing.assert_close(net[0].weight.sign(), -weight.sign())


def test_gradients_pass_under_inference_mode():
    net, x = network(), torch.randn(8, 3)
    with torch.inference_mode(), frozen(net), torch.inference_mode(False), torch.enable_grad():
        state = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(state).sum(), state)
    assert slope.abs().sum() > 0
    assert all(parameter.grad is None for parameter in net.parameters())
