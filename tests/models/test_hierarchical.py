"""Layers of a flat latent, energies on them, and ladders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lebm.models import (
    BottomLayer,
    ConcatenatedEnergy,
    ConvEnergy,
    LadderEncoder,
    LadderGenerator,
    LatentLayout,
    LayerEnergies,
    MLPEnergy,
    MLPGenerator,
)
from lebm.models.ladder import stack


def test_layers_are_views_and_come_back() -> None:
    layout = LatentLayout([3, [2, 2, 2], 1])
    z = torch.randn(5, 12)
    layers = layout.split(z)
    assert [tuple(layer.shape) for layer in layers] == [(5, 3), (5, 2, 2, 2), (5, 1)]
    assert layers[1].data_ptr() == z[:, 3:].data_ptr()
    assert torch.equal(layout.join(layers), z)
    assert torch.equal(layout.sums(z)[:, 1], z[:, 3:11].sum(dim=1))
    assert layout.mask([0, 2]).tolist() == [True] * 3 + [False] * 8 + [True]
    with pytest.raises(ValueError, match="there is no layer 3"):
        layout.mask([3])
    for shapes in ([], [2, 0]):
        with pytest.raises(ValueError, match="at least one layer"):
            LatentLayout(shapes)


def test_a_sum_of_energies_looks_at_each_layer_alone() -> None:
    parts = [MLPEnergy(2, [8]), ConvEnergy([3, 8, 8], channels=4, hidden=8), MLPEnergy(1, [8])]
    energy = LayerEnergies(parts)
    z = torch.randn(4, 195, requires_grad=True)
    expected = parts[0](z[:, :2]) + parts[1](z[:, 2:194]) + parts[2](z[:, 194:])
    torch.testing.assert_close(energy(z), expected)
    (mixed,) = torch.autograd.grad(energy(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(mixed[:, :2].sum(), z)
    assert second[:, :2].abs().max() > 0
    assert torch.equal(second[:, 2:], torch.zeros(4, 193))  # no layer bends another's slope
    joint = ConcatenatedEnergy([2, 192, 1], [8, 8])
    (mixed,) = torch.autograd.grad(joint.eval()(z).sum(), z)
    assert joint.latent_dim == 195


@pytest.mark.parametrize(
    ("shape", "layers"), [([2, 4, 4], [nn.Linear]), ([20, 16, 16], [nn.Conv2d] * 2 + [nn.Linear] * 2)]
)
def test_convolutional_energy_has_the_published_depth(shape: list[int], layers: list[type]) -> None:
    """As many halvings as lead to 4 x 4, the same number of layers of 200, then one number."""
    energy = ConvEnergy(shape)
    kinds = [type(layer) for layer in energy.net if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert kinds == [*layers, nn.Linear]
    assert all(layer.out_channels == 64 for layer in energy.net if isinstance(layer, nn.Conv2d))
    assert energy(torch.randn(3, energy.latent_dim)).shape == (3,)


def test_impossible_energies_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        ConvEnergy([2, 6, 6])
    with pytest.raises(ValueError, match="at least one layer"):
        LayerEnergies([])


def test_a_ladder_is_the_recursion_of_the_paper() -> None:
    """h_3 = g_3(z_3), h_i = g_i([z_i, h_{i+1}]), written out."""
    torch.manual_seed(0)
    for merge in ("concat", "add", "gated_add"):
        ladder = LadderGenerator(
            [2, 3, 1], [1, 4, 4], [["linear 16"], ["linear 6"], ["linear 5"]], merge=merge, activation="tanh"
        )
        z = torch.randn(7, 6)
        h = torch.tanh(ladder.nets[2][0](z[:, 5:]))
        for layer, part in ((1, z[:, 2:5]), (0, z[:, :2])):
            own = torch.tanh(ladder.projections[layer][0](part))
            gate = ladder.gates[layer] if merge == "gated_add" else 1.0
            merged = torch.cat([own, h], dim=1) if merge == "concat" else h + gate * own
            h = torch.tanh(ladder.nets[layer][0](merged))
        torch.testing.assert_close(ladder(z), h.reshape(7, 1, 4, 4))
        assert merge != "gated_add" or bool(
            (torch.cat([gate.flatten() for gate in ladder.gates]) == 0.1).all()
        )


def test_a_sum_of_two_plain_terms() -> None:
    """Without activations before the merge, only the layers inside a block bend."""
    blocks = [["linear 16"], ["linear 6", "linear 4"]]
    ladder = LadderGenerator(
        [2, 3], [1, 4, 4], blocks, merge="add", projection_activation=False, merge_activation=False
    )
    z = torch.randn(7, 5)
    inner, outer = ladder.nets[1][0], ladder.nets[1][2]
    h = outer(nn.functional.leaky_relu(inner(z[:, 2:]), 0.2)) + ladder.projections[0][0](z[:, :2])
    torch.testing.assert_close(ladder(z), torch.tanh(ladder.nets[0][0](h)).reshape(7, 1, 4, 4))


def test_bottom_up_inference_reads_a_layer_at_its_own_height() -> None:
    """The bottom layer's Gaussian does not change when the trunk above it does."""
    torch.manual_seed(0)
    for separate in (False, True):
        encoder = LadderEncoder(
            [2, 2, 2], [1, 8, 8], [["down 4", "conv 4"], ["down 4"], ["linear 6"]], separate=separate
        )
        x = torch.randn(3, 1, 8, 8)
        before = encoder(x)
        with torch.no_grad():
            for parameter in encoder.trunk[2].parameters():
                parameter.add_(0.3)
        after = encoder(x)
        assert torch.equal(before.mean[:, :4], after.mean[:, :4])
        assert not torch.equal(before.mean[:, 4:], after.mean[:, 4:])
        with torch.no_grad():
            for parameter in encoder.trunk[0].parameters():
                parameter.add_(0.3)
        again = encoder(x)
        assert (
            torch.equal(after.mean[:, :2], again.mean[:, :2]) == separate
        )  # a separate branch leaves the trunk alone
        assert not torch.equal(after.mean[:, 2:4], again.mean[:, 2:4])


def test_words_make_layers() -> None:
    net, shape = stack(["down 8", "conv 6", "up 4", "linear 2x3x3"], (1, 8, 8), "relu", norm="group")
    assert shape == (2, 3, 3)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 2, 3, 3)
    assert sum(isinstance(layer, nn.GroupNorm) for layer in net) == 4
    batch, _ = stack(["linear 4"], (3,), "relu", norm="batch", plain_end=True)
    assert [type(layer) for layer in batch] == [nn.Linear]
    for words, shape, message in (
        (["pool 3"], (4,), "cannot read the layer 'pool 3'"),
        (["linear 3x3"], (4,), "cannot read the layer 'linear 3x3'"),
        (["conv 8"], (4,), "needs an image; put"),
        (["down 8"], (1, 7, 7), "halves the size, but the image is 7 x 7"),
        ([], (4,), "at least one layer"),
    ):
        with pytest.raises(ValueError, match=message):
            stack(words, shape, "relu")
    with pytest.raises(ValueError, match="norm must be one of none, group, batch, not 'layer'"):
        stack(["linear 2"], (2,), "relu", norm="layer")


def test_impossible_ladders_are_refused() -> None:
    with pytest.raises(ValueError, match="2 layers needs as many blocks, not 1"):
        LadderGenerator([1, 1], [1, 2, 2], [["linear 4"]])
    with pytest.raises(ValueError, match=r"the blocks lead to \[5\], but an image is \[1, 2, 2\]"):
        LadderGenerator([1], [1, 2, 2], [["linear 5"]])
    with pytest.raises(ValueError, match="merge must be one of"):
        LadderGenerator([1], [1, 2, 2], [["linear 4"]], merge="multiply")
    with pytest.raises(ValueError, match="takes 3 latent coordinates but the bottom layer has 2"):
        BottomLayer(MLPGenerator(3, [4]), [2, 2])


def test_a_bottom_layer_hides_the_layers_above() -> None:
    inner = MLPGenerator(2, [4], [8])
    z = torch.randn(3, 5)
    assert torch.equal(BottomLayer(inner, [2, 3])(z), inner(z[:, :2]))
