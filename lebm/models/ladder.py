"""Ladders: a generator that takes its latent in at several depths, and the bottom-up encoder that mirrors it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lebm.models.encoders import GaussianEncoder
from lebm.models.generators import Generator
from lebm.models.hierarchical import LatentLayout
from lebm.models.ladder_layers import stack

__all__ = ["BottomLayer", "LadderEncoder", "LadderGenerator"]

MERGES = ("concat", "add", "gated_add")


class LadderGenerator(Generator):
    r""":math:`h_L = g_L(z_L)`, :math:`h_i = g_i([z_i, h_{i+1}])`, and :math:`h_1` is the mean image (Cui et
    al., ICCV 2023, eq. 3).

    Layers of the latent are a priori independent; the hierarchy is in the network alone: what enters at the
    top passes through more of it, and so tends to carry what is more abstract.

    Args:
        latent_dims: sizes of the layers, bottom first.
        out_shape: channels, height and width of an image.
        blocks: one list of layers each, bottom first, see :func:`~lebm.models.ladder_layers.stack`. The top
            block starts from the top layer's coordinates; the last layer of the bottom block gives the image.
            ``"linear 784"`` may stand for ``1x28x28``.
        merge: how ``z_i``, made as large as ``h_{i+1}`` by a linear map, joins it: ``"concat"`` on the
            channels, ``"add"``, or ``"gated_add"`` with one learned factor a channel.
        activation: ``"leaky_relu"`` (slope 0.2), ``"gelu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or
            ``"tanh"``.
        projection_activation: whether the linear maps of ``z_i`` are followed by norm and activation.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.
        norm: ``"none"``, ``"group"`` or ``"batch"``, after every layer but the last.
        bias: of the convolutions.
        gate: start of the factors of ``"gated_add"``.

    Shapes: ``(B, sum(latent_dims)) -> (B, *out_shape)``.

    Raises:
        ValueError: if blocks and layers differ in number, a layer does not fit, or the image does not come
            out.
    """

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
        bias: bool = False,
        gate: float = 0.1,
    ) -> None:
        super().__init__()
        self.layout = LatentLayout(latent_dims)
        _check(self.layout, blocks)
        if merge not in MERGES:
            raise ValueError(f"unknown merge {merge!r}; choose one of {', '.join(MERGES)}")
        if output not in ("tanh", "linear"):
            raise ValueError(f"output must be 'tanh' or 'linear', not {output!r}")
        self.latent_dim = self.layout.latent_dim
        self.out_shape = tuple(out_shape)
        self.merge = merge
        top = len(blocks) - 1
        nets, projections, gates = [], [], []
        shape: tuple[int, ...] = (self.layout.sizes[top],)
        for layer in range(top, -1, -1):
            if layer < top:
                size = "x".join(map(str, shape))
                maps, _ = stack(
                    [f"linear {size}"],
                    (self.layout.sizes[layer],),
                    activation,
                    norm=norm if projection_activation else "none",
                    plain_end=not projection_activation,
                )
                projections.append(maps)
                if merge == "gated_add":
                    gates.append(nn.Parameter(torch.full((shape[0], *[1] * (len(shape) - 1)), float(gate))))
                shape = (2 * shape[0], *shape[1:]) if merge == "concat" else shape
            net, shape = stack(blocks[layer], shape, activation, norm=norm, bias=bias, plain_end=layer == 0)
            nets.append(net)
        if math.prod(shape) != math.prod(self.out_shape):
            raise ValueError(
                f"the blocks lead to {'x'.join(map(str, shape))}, but an image is"
                f" {'x'.join(map(str, self.out_shape))}"
            )
        # bottom first, as everywhere
        self.nets, self.projections = nn.ModuleList(reversed(nets)), nn.ModuleList(reversed(projections))
        self.gates = nn.ParameterList(reversed(gates))
        self.output = nn.Tanh() if output == "tanh" else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        layers = self.layout.split(z)
        h = self.nets[-1](layers[-1])
        for layer in range(len(layers) - 2, -1, -1):
            h = self.nets[layer](self._merged(layer, self.projections[layer](layers[layer]), h))
        return self.output(h).reshape(-1, *self.out_shape)

    def _merged(self, layer: int, own: Tensor, above: Tensor) -> Tensor:
        if self.merge == "concat":
            return torch.cat([own, above], dim=1)
        return above + (own * self.gates[layer] if self.merge == "gated_add" else own)


class LadderEncoder(GaussianEncoder):
    r"""Bottom-up inference: :math:`r_1 = h_1(x)`, :math:`r_i = h_i(r_{i-1})`, and a Gaussian over :math:`z_i`
    read at each height.

    Given x the layers are independent of each other.

    Args:
        latent_dims: sizes of the layers, bottom first.
        in_shape: channels, height and width of an image.
        blocks: one list of layers each, bottom first, see :func:`~lebm.models.ladder_layers.stack`.
        separate: mean and log-variance of a layer are read from a block of their own beside the one that
            leads on (as released); otherwise from that one. The top block is always its own.
        activation: as for the generator; ``"leaky_relu_0.01"`` in the released networks.
        norm: ``"none"``, ``"group"`` or ``"batch"``.
        bias: of the convolutions.

    Raises:
        ValueError: if blocks and layers differ in number, or a layer does not fit.
    """

    def __init__(
        self,
        latent_dims: Sequence[int],
        in_shape: Sequence[int],
        blocks: Sequence[Sequence[str]],
        separate: bool = True,
        activation: str = "leaky_relu_0.01",
        norm: str = "none",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.layout = LatentLayout(latent_dims)
        _check(self.layout, blocks)
        self.latent_dim = self.layout.latent_dim
        self.in_shape = shape = tuple(in_shape)
        top = len(blocks) - 1
        self.trunk, self.branches, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for layer, words in enumerate(blocks):
            net, after = stack(words, shape, activation, norm=norm, bias=bias)
            self.trunk.append(net)
            if separate and layer < top:
                self.branches.append(stack(words, shape, activation, norm=norm, bias=bias)[0])
            self.heads.append(nn.Linear(math.prod(after), 2 * self.layout.sizes[layer]))
            shape = after

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        means, log_variances, r = [], [], x
        for layer, (net, head) in enumerate(zip(self.trunk, self.heads, strict=True)):
            below, r = r, net(r)
            seen = self.branches[layer](below) if layer < len(self.branches) else r
            mean, log_variance = head(seen.flatten(1)).chunk(2, dim=1)
            means.append(mean)
            log_variances.append(log_variance)
        return torch.cat(means, dim=1), torch.cat(log_variances, dim=1)


class BottomLayer(Generator):
    """A generator of the bottom layer alone, for hierarchies whose upper layers reach the data only through
    the layers below.

    Args:
        generator: takes the bottom layer.
        latent_dims: sizes of all layers, bottom first.

    Shapes: ``(B, sum(latent_dims)) -> (B, *out_shape)``.

    Raises:
        ValueError: if the generator does not take as many coordinates as the bottom layer has.
    """

    def __init__(self, generator: Generator, latent_dims: Sequence[int]) -> None:
        super().__init__()
        self.layout = LatentLayout(latent_dims)
        if generator.latent_dim != self.layout.sizes[0]:
            raise ValueError(
                f"the generator takes {generator.latent_dim} coordinates but the bottom layer has"
                f" {self.layout.sizes[0]}"
            )
        self.generator = generator
        self.latent_dim = self.layout.latent_dim
        self.out_shape = generator.out_shape

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z[:, : self.generator.latent_dim])


def _check(layout: LatentLayout, blocks: Sequence[Sequence[str]]) -> None:
    if len(blocks) != len(layout):
        raise ValueError(f"a ladder of {len(layout)} layers needs as many blocks, not {len(blocks)}")
