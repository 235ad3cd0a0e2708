"""Encoders and their Gaussian against ``torch.distributions``."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from lebm.models import ConvEncoder, DiagonalGaussian, MLPEncoder
from lebm.samplers import Noise


@pytest.fixture
def gaussian() -> tuple[DiagonalGaussian, Independent]:
    torch.manual_seed(0)
    mean, log_scale = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    return DiagonalGaussian(mean, log_scale), Independent(Normal(mean, log_scale.exp()), 1)


def test_log_prob_entropy_and_divergence(gaussian: tuple[DiagonalGaussian, Independent]) -> None:
    ours, reference = gaussian
    z = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(z), reference.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), reference.entropy(), rtol=1e-12, atol=1e-12)
    standard = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
    divergence = ours.divergences(DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))).sum(dim=1)
    torch.testing.assert_close(divergence, kl_divergence(reference, standard), rtol=1e-12, atol=1e-12)


def test_draws_have_the_right_moments_and_gradients() -> None:
    n = 40_000
    mean, log_scale = (
        torch.tensor([[1.0, -2.0]]).requires_grad_(True),
        torch.tensor([[0.5, -1.0]]).requires_grad_(True),
    )
    drawn = DiagonalGaussian(mean.expand(n, 2), log_scale.expand(n, 2)).rsample(
        torch.Generator().manual_seed(1)
    )
    scale = log_scale.exp()
    assert ((drawn.mean(0) - mean).abs() < 5 * scale / n**0.5).all()
    assert ((drawn.std(0) / scale - 1).abs() < 5 / (2 * n) ** 0.5).all()
    by_mean, by_log_scale = torch.autograd.grad(drawn.sum(), [mean, log_scale])
    torch.testing.assert_close(by_mean, torch.full((1, 2), float(n)))
    torch.testing.assert_close(by_log_scale, (drawn - mean).sum(0, keepdim=True), rtol=1e-3, atol=1e-1)


def test_draws_repeat_from_the_same_stream(gaussian: tuple[DiagonalGaussian, Independent]) -> None:
    ours, _ = gaussian
    first, second = (ours.rsample(Noise.shards(0, "q", shards=2)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, ours.rsample(Noise.shards(1, "q", shards=2)))


@pytest.mark.parametrize(
    ("shape", "channels", "end", "layers"),
    [
        ([3, 32, 32], [8, 16, 16, 32], 4, [(3, 1, 1), (4, 2, 1), (4, 2, 1), (4, 2, 1)]),
        ([3, 64, 64], [8, 16, 16, 32], 4, [(4, 2, 1)] * 4),
        ([1, 28, 28], [8, 16, 16], 7, [(3, 1, 1), (4, 2, 1), (4, 2, 1)]),
    ],
)
def test_conv_encoder_is_the_plain_stack(
    shape: list[int], channels: list[int], end: int, layers: list[tuple[int, int, int]]
) -> None:
    torch.manual_seed(2)
    encoder = ConvEncoder(5, shape, channels, end).double()
    hidden = x = torch.rand(3, *shape, dtype=torch.float64) * 2 - 1
    weights = [parameter for name, parameter in encoder.named_parameters() if name.startswith("net.")]
    for weight, (kernel, stride, padding) in zip(weights, layers, strict=True):
        assert weight.shape[2] == kernel
        hidden = nn.functional.leaky_relu(nn.functional.conv2d(hidden, weight, None, stride, padding), 0.2)
    posterior = encoder(x)
    torch.testing.assert_close(posterior.mean, torch.einsum("bchw,dchw->bd", hidden, encoder.mean.weight))
    torch.testing.assert_close(
        2 * posterior.log_scale, torch.einsum("bchw,dchw->bd", hidden, encoder.log_variance.weight)
    )


def test_released_cifar10_encoder_size() -> None:
    """3 -> 128 (3x3), 256, 512, 1024 (4x4), two heads of 4x4 to 128, no biases."""
    with torch.device("meta"):
        encoder = ConvEncoder(128, [3, 32, 32], [128, 256, 512, 1024])
    expected = 3 * 128 * 9 + 16 * (128 * 256 + 256 * 512 + 512 * 1024) + 2 * 16 * 1024 * 128
    assert sum(p.numel() for p in encoder.parameters()) == expected


@pytest.mark.parametrize(
    ("bias", "head_bias", "biases"), [(False, None, 0), (True, None, 5), (False, True, 2)]
)
def test_heads_have_biases_of_their_own(bias: bool, head_bias: bool | None, biases: int) -> None:
    encoder = ConvEncoder(5, [3, 16, 16], [4, 6, 8], bias=bias, head_bias=head_bias)
    assert sum(name.endswith("bias") for name, _ in encoder.named_parameters()) == biases
    x = torch.rand(2, 3, 16, 16)
    before = encoder(x)
    if head_bias:
        with torch.no_grad():
            encoder.mean.bias += 1
            encoder.log_variance.bias += 2
        torch.testing.assert_close(encoder(x).mean, before.mean + 1)
        torch.testing.assert_close(encoder(x).log_scale, before.log_scale + 1)


def test_mlp_encoder_shapes_and_independence_of_rows() -> None:
    encoder = MLPEncoder(3, [1, 28, 28], [16])
    x = torch.rand(4, 1, 28, 28)
    posterior = encoder(x)
    assert posterior.mean.shape == posterior.log_scale.shape == (4, 3)
    torch.testing.assert_close(encoder(x[1:2]).mean, posterior.mean[1:2])
    assert encoder(x[:0]).entropy().shape == (0,)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="change end"):
        ConvEncoder(4, [3, 40, 40], [8, 8, 8])
    with pytest.raises(ValueError, match="two equal sizes"):
        ConvEncoder(4, [3, 32, 16], [8, 8, 8])
