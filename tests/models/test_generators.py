"""Generators against plain PyTorch layers with the same weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lebm.models import ConvGenerator, MLPGenerator

# latent size, image, channels, start: every published network at 1/32 of its width
SMALL = {
    "svhn": (10, [3, 32, 32], [16, 8, 4], 4),
    "cifar10": (12, [3, 32, 32], [32, 16, 8], 8),
    "celeba64": (10, [3, 64, 64], [32, 16, 8, 4], 4),
    "celeba128": (10, [3, 128, 128], [32, 16, 8, 4, 4], 4),
    "celebahq256": (12, [3, 256, 256], [16, 8, 4, 4, 4, 4], 4),
    "mnist": (8, [1, 28, 28], [32, 16, 8], 7),
    "mnist_doubling": (8, [1, 28, 28], [16, 8], 7),
}

# kernel, stride, padding of every layer as tabulated
LAYERS = {
    "svhn": [(4, 1, 0), *[(4, 2, 1)] * 3],
    "cifar10": [(8, 1, 0), (4, 2, 1), (4, 2, 1), (3, 1, 1)],
    "celeba64": [(4, 1, 0), *[(4, 2, 1)] * 4],
    "celeba128": [(4, 1, 0), *[(4, 2, 1)] * 5],
    "celebahq256": [(4, 1, 0), *[(4, 2, 1)] * 6],
    "mnist": [(7, 1, 0), (4, 2, 1), (4, 2, 1), (3, 1, 1)],
    "mnist_doubling": [(7, 1, 0), (4, 2, 1), (4, 2, 1)],
}

FULL = [
    (100, [3, 32, 32], [512, 256, 128], 4, 3_447_683),
    (128, [3, 32, 32], [1024, 512, 256], 8, 18_883_075),
    (100, [3, 64, 64], [1024, 512, 256, 128], 4, 12_656_515),
]


def plain(name: str, generator: ConvGenerator) -> nn.Sequential:
    """The tabulated layers as PyTorch has them, with the generator's weights loaded by name."""
    latent_dim, shape, channels, _ = SMALL[name]
    widths = [latent_dim, *channels, shape[0]]
    net = nn.Sequential()
    for position, layer in enumerate(LAYERS[name]):
        net.append(nn.ConvTranspose2d(widths[position], widths[position + 1], *layer))
        net.append(nn.LeakyReLU(0.2) if position < len(LAYERS[name]) - 1 else nn.Tanh())
    net.load_state_dict(generator.net.state_dict())
    return net.to(next(generator.parameters()).dtype)


def value_and_gradients(network: nn.Module, z: Tensor, probe: Tensor) -> list[Tensor]:
    z = z.clone().requires_grad_(True)
    value = network(z)
    return [value, *torch.autograd.grad((value * probe).sum(), [z, *network.parameters()])]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_conv_generator_is_the_plain_stack(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    latent_dim, shape, channels, start = SMALL[name]
    generator = ConvGenerator(latent_dim, shape, channels, start).to(dtype)
    reference = nn.Sequential(nn.Unflatten(1, (latent_dim, 1, 1)), plain(name, generator))
    z = torch.randn(3, latent_dim, dtype=dtype)
    probe = torch.randn(3, *shape, dtype=dtype)
    ours, theirs = value_and_gradients(generator, z, probe), value_and_gradients(reference, z, probe)
    assert ours[0].shape == (3, *shape)
    for mine, known in zip(ours, theirs, strict=True):
        assert (mine - known).abs().max() <= tolerance * max(1.0, known.abs().max().item())


@pytest.mark.parametrize("name", ["svhn", "cifar10", "mnist"])
def test_functorch_gradients_agree(name: str) -> None:
    """Activations overwrite their input, and ``torch.func`` must work, also nested and with ``vmap``."""
    torch.manual_seed(1)
    latent_dim, shape, channels, start = SMALL[name]
    generator = ConvGenerator(latent_dim, shape, channels, start).double()
    z = torch.randn(2, latent_dim, dtype=torch.float64)

    def potential(z: Tensor) -> Tensor:
        return generator(z).square().sum()

    held = z.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(potential(held), held)
    torch.testing.assert_close(torch.func.grad(potential)(z), expected, rtol=1e-12, atol=1e-12)
    rows = torch.func.vmap(torch.func.grad(lambda row: potential(row[None])))(z)
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiled_gradient_agrees() -> None:
    torch.manual_seed(2)
    latent_dim, shape, channels, start = SMALL["svhn"]
    generator = ConvGenerator(latent_dim, shape, channels, start)
    z = torch.randn(2, latent_dim)
    slope = torch.func.grad(lambda z: generator(z).square().sum())
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(slope)(z), slope(z), rtol=1e-4, atol=1e-5)


def test_empty_and_single_batches() -> None:
    generator = ConvGenerator(4, [3, 32, 32], [8, 8, 8])
    assert generator(torch.randn(0, 4)).shape == (0, 3, 32, 32)
    many = torch.randn(5, 4)
    torch.testing.assert_close(generator(many[:1]), generator(many)[:1])


@pytest.mark.parametrize(("latent_dim", "shape", "channels", "start", "parameters"), FULL)
def test_published_parameter_counts(
    latent_dim: int, shape: list[int], channels: list[int], start: int, parameters: int
) -> None:
    with torch.device("meta"):
        generator = ConvGenerator(latent_dim, shape, channels, start)
        assert generator(torch.empty(2, latent_dim)).shape == (2, *shape)
    assert sum(p.numel() for p in generator.parameters()) == parameters


def test_weights_start_xavier_normal() -> None:
    torch.manual_seed(3)
    generator = ConvGenerator(64, [3, 32, 32], [64, 64, 64])
    weight = generator.net[2].weight
    expected = (2 / (64 * 16 + 64 * 16)) ** 0.5
    # a standard deviation estimated from n normals errs by sigma / sqrt(2 n); five of these
    assert abs(weight.std().item() / expected - 1) < 5 / (2 * weight.numel()) ** 0.5
    assert weight.abs().max() > 3.5 * expected, "a uniform start would end at 1.73 standard deviations"


def test_initial_weights_of_torch_and_unknown_ones() -> None:
    torch.manual_seed(0)
    generator = ConvGenerator(16, [3, 32, 32], [64, 32, 16], start=4, initialization="default")
    for layer in generator.net:
        if isinstance(layer, nn.ConvTranspose2d):  # uniform, up to 1 / sqrt(fan in)
            bound = (layer.weight[0].numel()) ** -0.5
            assert 0.98 * bound < float(layer.weight.detach().abs().max()) <= bound
    message = "initialization must be one of default, xavier_conv, xavier, not 'he'"
    with pytest.raises(ValueError, match=message):
        ConvGenerator(16, [3, 32, 32], [64, 32, 16], start=4, initialization="he")


def test_smooth_activation_and_linear_output() -> None:
    generator = ConvGenerator(4, [1, 28, 28], [8, 8], start=7, activation="gelu", output="linear").double()
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: generator(z).flatten(1)[:, ::97], z)
    assert (generator(100 * z).abs() > 1).any()


def test_a_copy_and_a_reload_agree() -> None:
    generator = ConvGenerator(4, [3, 32, 32], [8, 8, 8])
    other = ConvGenerator(4, [3, 32, 32], [8, 8, 8])
    other.load_state_dict(generator.state_dict())
    z = torch.randn(2, 4)
    assert torch.equal(other(z), generator(z))
    assert torch.equal(copy.deepcopy(generator)(z), generator(z))


@pytest.mark.parametrize(
    ("shape", "channels", "start", "message"),
    [
        ([3, 48, 48], [8, 8, 8], 4, "change start"),
        ([3, 32, 16], [8, 8, 8], 4, "two equal sizes"),
        ([32, 32], [8, 8, 8], 4, "two equal sizes"),
        ([3, 32, 32], [], 4, "channels must not be empty"),
        ([3, 32, 32], [8, 0, 8], 4, "at least 1"),
    ],
)
def test_impossible_sizes_are_refused(
    shape: list[int], channels: list[int], start: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ConvGenerator(4, shape, channels, start)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="activation must be one of gelu, .*, not 'swish'"):
        ConvGenerator(4, [1, 28, 28], [8, 8], start=7, activation="swish")
    with pytest.raises(ValueError, match="output must be"):
        MLPGenerator(4, [1, 28, 28], output="sigmoid")


def test_mlp_generator() -> None:
    torch.manual_seed(4)
    generator = MLPGenerator(8, [1, 28, 28], [400, 400])
    assert sum(p.numel() for p in generator.parameters()) == 8 * 400 + 400 + 400 * 400 + 400 + 400 * 784 + 784
    z = torch.randn(3, 8)
    linears = [layer for layer in generator.net if isinstance(layer, nn.Linear)]
    hidden = z
    for layer in linears[:-1]:
        hidden = nn.functional.leaky_relu(hidden @ layer.weight.T + layer.bias, 0.2)
    expected = torch.tanh(hidden @ linears[-1].weight.T + linears[-1].bias).reshape(3, 1, 28, 28)
    torch.testing.assert_close(generator(z), expected)
