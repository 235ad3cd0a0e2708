"""Ladders: a generator that takes its latent at several depths, and its bottom-up encoder."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lebm.models.encoders import GaussianEncoder
from lebm.models.generators import Generator
from lebm.models.hierarchical import LatentLayout
from lebm.models.layers import activation_layer, check_choice, check_sizes, initialize, output_layer

_WORD = re.compile(r"linear [1-9]\d*(x[1-9]\d*x[1-9]\d*)?|(conv|down|up) [1-9]\d*")


def stack(
    words: Sequence[str],
    shape: tuple[int, ...],
    activation: str,
    *,
    norm: str = "none",
    plain_end: bool = False,
) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Build layers and return them with the shape of their output.

    Args:
        words: one word per layer. ``"linear 400"`` takes the whole input; ``"linear 64x4x4"`` gives an image;
            ``"conv 64"`` keeps the size (kernel 3); ``"down 64"`` halves it (kernel 4); ``"up 64"`` doubles
            it (transposed, kernel 4). Convolutions have no biases.
        shape: shape of the input, ``(d,)`` or ``(C, H, W)``.
        activation: name of the activation after every layer.
        norm: ``"none"``, ``"group"`` or ``"batch"``, between a layer and its activation.
        plain_end: whether norm and activation of the last layer are left out.

    Returns:
        The network, and the shape of its output.

    Raises:
        ValueError: if a word cannot be read or does not fit.
    """
    if not words:
        raise ValueError("a block needs at least one layer, for example 'linear 400'")
    check_choice("norm", norm, ("none", "group", "batch"))
    net = nn.Sequential()
    for position, word in enumerate(words):
        shape = _append(net, word, shape)
        if plain_end and position == len(words) - 1:
            break
        net.extend(_norm(norm, shape))
        net.append(activation_layer(activation))
    return net, shape


def _append(net: nn.Sequential, word: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not _WORD.fullmatch(word):
        raise ValueError(
            f"cannot read the layer {word!r}; write 'linear 400', 'linear 64x4x4', 'conv 64', 'down 64' or"
            " 'up 64'"
        )
    kind, size = word.split()
    sizes = tuple(map(int, size.split("x")))
    if kind == "linear":
        if len(shape) > 1:
            net.append(nn.Flatten())
        net.append(nn.Linear(math.prod(shape), math.prod(sizes)))
        if len(sizes) > 1:
            net.append(nn.Unflatten(1, sizes))
        return sizes
    if len(shape) != 3:
        raise ValueError(f"the layer {word!r} needs an image; put 'linear CxHxW' before it")
    before, height, width = shape
    after = sizes[0]
    if kind == "conv":
        net.append(nn.Conv2d(before, after, 3, 1, 1, bias=False))
        return after, height, width
    if kind == "up":
        net.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
        return after, 2 * height, 2 * width
    if height % 2 or width % 2:
        raise ValueError(f"the layer {word!r} halves the size, but the image is {height} x {width}")
    net.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
    return after, height // 2, width // 2


def _norm(name: str, shape: tuple[int, ...]) -> list[nn.Module]:
    channels = shape[0]
    if name == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    if name == "batch":
        return [nn.BatchNorm1d(channels) if len(shape) == 1 else nn.BatchNorm2d(channels)]
    return []


class LadderGenerator(Generator):
    r"""A generator whose layers of latents enter at different depths (Cui et al., ICCV 2023, eq. 3).

    :math:`h_L = g_L(z_L)`, :math:`h_i = g_i([z_i, h_{i+1}])`, and :math:`h_1` is the mean image. The layers
    of the latent are independent a priori; only the network is hierarchical. A layer that enters higher
    passes through more of the network, so it tends to carry more abstract content.

    Args:
        latent_dims: sizes of the layers, bottom first.
        out_shape: channels, height and width of an image.
        blocks: one list of words per latent layer, bottom first, see :func:`~lebm.models.ladder.stack`. The
            top block starts from the coordinates of the top layer. The last layer of the bottom block gives
            the image; ``"linear 784"`` may stand for ``1x28x28``.
        merge: how ``z_i``, mapped by a linear layer to the size of ``h_{i+1}``, joins it. ``"concat"`` joins
            on the channels, ``"add"`` adds, and ``"gated_add"`` adds with one learned factor per channel, 0.1
            at the start.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        projection_activation: whether norm and activation follow the linear maps of ``z_i``.
        merge_activation: whether norm and activation follow the last layer of a block whose result ``z_i``
            joins; ``False`` in the released networks that merge by addition.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.
        norm: ``"none"``, ``"group"`` or ``"batch"``, after every layer but the last.
        initialization: ``"default"`` (PyTorch's), or ``"xavier_conv"``, Xavier-normal weights of the
            convolutions (released).

    Raises:
        ValueError: if blocks and layers differ in number, a layer does not fit, the blocks do not lead to the
            image, or for an unknown name.

    Example:
        >>> import torch
        >>> from lebm.models import LadderGenerator
        >>> blocks = [["up 8", "up 1"], ["linear 16x7x7"]]
        >>> generator = LadderGenerator(latent_dims=[2, 3], out_shape=[1, 28, 28], blocks=blocks)
        >>> generator(torch.zeros(4, 5)).shape
        torch.Size([4, 1, 28, 28])
    """

    former = {"bias": False, "gate": 0.1}

    def __init__(
        self,
        latent_dims: Sequence[int],
        out_shape: Sequence[int],
        blocks: Sequence[Sequence[str]],
        merge: str = "concat",
        activation: str = "leaky_relu",
        projection_activation: bool = True,
        output: str = "tanh",
        norm: str = "none",
        merge_activation: bool = True,
        initialization: str = "default",
    ) -> None:
        super().__init__()
        self.layout = _layout(latent_dims, blocks)
        check_choice("merge", merge, ("concat", "add", "gated_add"))
        self.latent_dim = self.layout.latent_dim
        self.out_shape = tuple(out_shape)
        self.merge = merge
        top = len(blocks) - 1
        nets, projections, gates = [], [], []
        shape: tuple[int, ...] = (self.layout.sizes[top],)
        for layer in range(top, -1, -1):
            if layer < top:
                word, own = f"linear {'x'.join(map(str, shape))}", (self.layout.sizes[layer],)
                maps, _ = stack([word], own, activation, norm=norm, plain_end=not projection_activation)
                projections.append(maps)
                if merge == "gated_add":
                    gates.append(nn.Parameter(torch.full((shape[0], *[1] * (len(shape) - 1)), 0.1)))
                shape = (2 * shape[0], *shape[1:]) if merge == "concat" else shape
            plain_end = layer == 0 or not merge_activation
            net, shape = stack(blocks[layer], shape, activation, norm=norm, plain_end=plain_end)
            nets.append(net)
        if math.prod(shape) != math.prod(self.out_shape):
            raise ValueError(f"the blocks lead to {list(shape)}, but an image is {list(self.out_shape)}")
        # bottom layer first, like all lists of layers
        self.nets, self.projections = nn.ModuleList(reversed(nets)), nn.ModuleList(reversed(projections))
        self.gates = nn.ParameterList(reversed(gates))
        self.output = output_layer(output)
        initialize(self, initialization)

    def forward(self, z: Tensor) -> Tensor:
        layers = self.layout.split(z)
        h = self.nets[-1](layers[-1])
        for layer in range(len(layers) - 2, -1, -1):
            own = self.projections[layer](layers[layer])
            if self.merge == "concat":
                h = torch.cat([own, h], dim=1)
            else:
                h = h + (own * self.gates[layer] if self.merge == "gated_add" else own)
            h = self.nets[layer](h)
        return self.output(h).reshape(-1, *self.out_shape)


class LadderEncoder(GaussianEncoder):
    r"""Bottom-up inference: one Gaussian per layer, independent given x.

    :math:`r_1 = h_1(x)` and :math:`r_i = h_i(r_{i-1})`. :math:`r_i` gives the Gaussian of :math:`z_i`.

    Args:
        latent_dims: sizes of the layers, bottom first.
        in_shape: channels, height and width of an image.
        blocks: one list of words per latent layer, bottom first, see :func:`~lebm.models.ladder.stack`.
        separate: whether mean and log-variance of a layer come from a second block, beside the block that
            leads to the next layer (as released), instead of from that block itself. The top layer always has
            one block.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        norm: ``"none"``, ``"group"`` or ``"batch"``.
        initialization: ``"default"`` or ``"xavier_conv"``, see :class:`LadderGenerator`.

    Raises:
        ValueError: if blocks and layers differ in number, a layer does not fit, or for an unknown name.

    Example:
        >>> import torch
        >>> from lebm.models import LadderEncoder
        >>> blocks = [["down 8", "down 16"], ["linear 32"]]
        >>> encoder = LadderEncoder(latent_dims=[2, 3], in_shape=[1, 28, 28], blocks=blocks)
        >>> encoder(torch.zeros(4, 1, 28, 28)).mean.shape
        torch.Size([4, 5])
    """

    former = {"bias": False}

    def __init__(
        self,
        latent_dims: Sequence[int],
        in_shape: Sequence[int],
        blocks: Sequence[Sequence[str]],
        separate: bool = True,
        activation: str = "leaky_relu_0.01",
        norm: str = "none",
        initialization: str = "default",
    ) -> None:
        super().__init__()
        self.layout = _layout(latent_dims, blocks)
        self.latent_dim = self.layout.latent_dim
        self.in_shape = shape = tuple(in_shape)
        self.trunk, self.branches, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for layer, words in enumerate(blocks):
            net, after = stack(words, shape, activation, norm=norm)
            self.trunk.append(net)
            if separate and layer < len(blocks) - 1:
                self.branches.append(stack(words, shape, activation, norm=norm)[0])
            self.heads.append(nn.Linear(math.prod(after), 2 * self.layout.sizes[layer]))
            shape = after
        initialize(self, initialization)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts, r = [], x
        for layer, (net, head) in enumerate(zip(self.trunk, self.heads, strict=True)):
            below, r = r, net(r)
            seen = self.branches[layer](below) if layer < len(self.branches) else r
            parts.append(head(seen.flatten(1)).chunk(2, dim=1))
        means, log_variances = zip(*parts, strict=True)
        return torch.cat(means, dim=1), torch.cat(log_variances, dim=1)


class BottomLayer(Generator):
    """A generator that uses the bottom layer alone.

    Use it for hierarchies whose upper layers affect the data only through the layers below.

    Args:
        generator: a generator whose latent is the bottom layer.
        latent_dims: sizes of all layers, bottom first.

    Raises:
        ValueError: if the ``latent_dim`` of the generator is not the size of the bottom layer.

    Example:
        >>> import torch
        >>> from lebm.models import BottomLayer, MLPGenerator
        >>> generator = BottomLayer(MLPGenerator(latent_dim=2, out_shape=[1, 8, 8]), latent_dims=[2, 3])
        >>> generator(torch.zeros(4, 5)).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, generator: Generator, latent_dims: Sequence[int]) -> None:
        super().__init__()
        self.layout = LatentLayout(latent_dims)
        check_sizes("the generator takes", generator.latent_dim, "the bottom layer has", self.layout.sizes[0])
        self.generator = generator
        self.latent_dim = self.layout.latent_dim
        self.out_shape = generator.out_shape

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z[:, : self.generator.latent_dim])


def _layout(latent_dims: Sequence[int], blocks: Sequence[Sequence[str]]) -> LatentLayout:
    if len(blocks) != len(latent_dims):
        raise ValueError(f"a ladder of {len(latent_dims)} layers needs as many blocks, not {len(blocks)}")
    return LatentLayout(latent_dims)
