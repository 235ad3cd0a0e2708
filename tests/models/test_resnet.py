"""Residual networks: what they compute, how steep they can be, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, relu

from lebm.models import ResNetEnergy, ResNetGenerator


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_the_energy_is_the_released_network_written_out():
    """Pooling after the shortcut's convolution, and no ReLU before the first block."""
    torch.manual_seed(0)
    net = ResNetEnergy([3, 8, 8], [4, 4, 5], [True, False, False]).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    a1, a2, a_short, b1, b2, c1, c2, c_short, out = weights(net)
    h = avg_pool2d(conv2d(relu(conv2d(x, a1, padding=1)), a2, padding=1), 2) + avg_pool2d(
        conv2d(x, a_short), 2
    )
    h = h + conv2d(relu(conv2d(relu(h), b1, padding=1)), b2, padding=1)
    h = conv2d(h, c_short) + conv2d(relu(conv2d(relu(h), c1, padding=1)), c2, padding=1)
    expected = (relu(h).mean(dim=(2, 3)) @ out.T).squeeze(1)
    torch.testing.assert_close(net(x), expected)


def test_every_layer_is_bounded():
    torch.manual_seed(0)
    net = ResNetEnergy([1, 8, 8], [6, 6], [True, False])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(7)
        for _ in range(30):
            net(torch.randn(2, 1, 8, 8))
    for weight in weights(net):
        assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1.0, abs=1e-2)
    free = ResNetEnergy([1, 8, 8], [6, 6], spectral_norm=False)
    assert not any(hasattr(layer, "parametrizations") for layer in free.modules())
    assert all(p.dim() > 1 for p in free.parameters()), "no biases"


def test_the_generator_is_the_released_network_written_out():
    """Interpolation before the shortcut's convolution, and norms in training mode."""
    torch.manual_seed(0)
    net = ResNetGenerator(3, [2, 8, 8], [5, 4], start=4, random_scales=True).double()
    z = torch.randn(6, 3, dtype=torch.float64)
    block = net.blocks[0]

    def double(x):
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    h = net.first(z).reshape(6, 5, 4, 4)
    main = block.two(relu(block.norm_two(block.one(double(relu(block.norm_one(h)))))))
    h = main + conv2d(double(h), block.shortcut.weight, block.shortcut.bias)
    expected = torch.tanh(net.last(relu(net.norm(h))))
    torch.testing.assert_close(net(z), expected)
    assert net.norm.weight.std() > 0.3  # released: N(0, 1), not 1
    assert (ResNetGenerator(3, [2, 8, 8], [5, 4]).norm.weight == 1).all()


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_a_sample_does_not_depend_on_its_neighbours(norm):
    torch.manual_seed(0)
    net, z = ResNetGenerator(3, [1, 28, 28], [6, 6, 5], start=7, norm=norm), torch.randn(4, 3)
    torch.testing.assert_close(net(z)[:1], net(z[:1]))
    assert net(z).shape == (4, 1, 28, 28)
    assert net(z).abs().max() <= 1
    batch = ResNetGenerator(3, [1, 28, 28], [6, 6, 5], start=7)
    assert not torch.allclose(batch(z)[:2], batch(z[:2]))


def test_double_backward_and_shapes():
    net = ResNetEnergy([3, 64, 64], [4, 4, 4, 4, 4])
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x).sum(), x)
    assert slope.shape == x.shape
    assert net.blocks(x).shape == (2, 4, 2, 2)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="3 channels with start 4 fit images of 16 px, but out_shape has 28"):
        ResNetGenerator(3, [1, 28, 28], [4, 4, 4])
    with pytest.raises(ValueError, match="norm must be one of batch, group, none"):
        ResNetGenerator(3, [1, 8, 8], [4, 4], norm="layer")
    with pytest.raises(ValueError, match="two equal sizes"):
        ResNetGenerator(3, [1, 8, 16], [4, 4])
    with pytest.raises(ValueError, match="all must be at least 1"):
        ResNetGenerator(0, [1, 8, 8], [4, 4])
    with pytest.raises(ValueError, match="leave nothing of 4 x 4 pixels"):
        ResNetEnergy([1, 4, 4], [4, 4, 4])
    with pytest.raises(ValueError, match="must have the same length"):
        ResNetEnergy([1, 8, 8], [4, 4], [True])
    with pytest.raises(ValueError, match="channels, height and width"):
        ResNetEnergy([64], [4])
    with pytest.raises(ValueError, match="activation must be one of"):
        ResNetEnergy([1, 8, 8], [4], activation="swish")
