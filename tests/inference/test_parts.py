"""Where latents of data come from: values, and which of them carry gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from lebm.errors import UserError
from lebm.estimators import AdamGroups, LatentMLE
from lebm.inference import (
    Frozen,
    Inferred,
    PosteriorChain,
    Remembered,
    ShortRun,
    Taught,
    Variational,
    mirror_encoder,
)
from lebm.models import (
    BottomLayer,
    ConvGenerator,
    GaussianLikelihood,
    MLPEncoder,
    MLPGenerator,
    StandardNormal,
)
from lebm.samplers import Langevin, Noise


def encoder() -> MLPEncoder:
    torch.manual_seed(0)
    return MLPEncoder(2, [1, 3, 3], hidden=[5]).double()


def data() -> Tensor:
    return torch.randn(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def never(*_: object) -> Tensor:
    raise AssertionError("an encoder needs no chain")


NO_CHAIN = PosteriorChain(never, never)


def noise() -> Noise:
    return Noise.shards("test", shards=2)


def test_a_variational_draw_is_reparameterised() -> None:
    network, x = encoder(), data()
    found = Variational(network).infer(x, None, NO_CHAIN, noise())
    q = network(x)
    epsilon = noise().normal((6, 2), dtype=torch.float64, device=x.device)
    torch.testing.assert_close(found.z, q.mean + q.log_scale.exp() * epsilon, rtol=1e-14, atol=1e-14)
    found.z.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_frozen_draw_has_the_same_value_and_no_gradient() -> None:
    network, x = encoder(), data()
    frozen = Frozen(network).infer(x, None, NO_CHAIN, noise())
    assert torch.equal(frozen.z, Variational(network).infer(x, None, NO_CHAIN, noise()).z)
    assert not frozen.z.requires_grad
    assert frozen.q is None


def climb(start: Tensor | None, source: Noise) -> Tensor:
    """A chain that adds 1 to every coordinate; the reference is at 0."""
    return (torch.zeros(6, 2, dtype=torch.float64) if start is None else start) + 1


def reference(source: Noise) -> Tensor:
    return torch.full((6, 2), 10.0, dtype=torch.float64)


CLIMB = PosteriorChain(climb, reference)


def test_a_short_run_starts_at_the_reference_every_time() -> None:
    part = ShortRun()
    for _ in range(2):
        found = part.infer(data(), torch.arange(6), CLIMB, noise())
        assert torch.equal(found.z, torch.ones(6, 2, dtype=torch.float64))
        assert found.q is found.teaching is None
    assert part.start(data(), noise()) is None


def test_a_taught_encoder_learns_the_end_and_nothing_flows_through_the_chain() -> None:
    network, x = encoder(), data()
    found = Taught(network).infer(x, None, CLIMB, noise())
    q = network(x)
    start = q.rsample(noise())
    assert torch.equal(found.z, start + 1)
    assert not found.z.requires_grad
    assert found.q is None
    expected = -Independent(Normal(q.mean, q.log_scale.exp()), 1).log_prob(start.detach() + 1).mean()
    assert found.teaching is not None
    torch.testing.assert_close(found.teaching, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, list(network.parameters()))
    got = torch.autograd.grad(found.teaching, list(network.parameters()))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_rows_go_on_where_their_own_chain_ended() -> None:
    part, x = Remembered(), data()
    first, second = torch.tensor([4, 0, 7, 2, 9, 1]), torch.tensor([0, 8, 4, 3, 2, 11])
    assert torch.equal(part.infer(x, first, CLIMB, noise()).z[:, 0], torch.full((6,), 11.0).double())
    again = part.infer(x, second, CLIMB, noise()).z[:, 0]
    assert again.tolist() == [12.0, 11.0, 12.0, 11.0, 12.0, 11.0]  # 0, 4 and 2 were seen before
    third = part.infer(x, torch.tensor([5000, 0, 4, 2, 8, 6]), CLIMB, noise()).z[:, 0]
    assert third.tolist() == [11.0, 13.0, 13.0, 13.0, 12.0, 11.0]


def test_the_memory_travels_with_the_state() -> None:
    part, x, rows = Remembered(), data(), torch.arange(6)
    part.infer(x, rows, CLIMB, noise())
    other = Remembered()
    other.load_state_dict(part.state_dict())
    expected = part.infer(x, rows, CLIMB, noise()).z
    assert torch.equal(other.infer(x, rows, CLIMB, noise()).z, expected)
    assert expected[0, 0] == 12
    memory = part.get_extra_state()["memory"]
    assert memory.shape == (4096, 2)  # 4096 rows at a time
    assert memory.isfinite().all(dim=1).sum() == 6


def test_a_broken_chain_starts_again_at_the_reference() -> None:
    part, x, rows = Remembered(), data(), torch.arange(6)

    def breaks(start: Tensor | None, source: Noise) -> Tensor:
        assert start is not None
        return torch.where(torch.arange(6)[:, None] == 3, torch.nan, start)

    part.infer(x, rows, PosteriorChain(breaks, reference), noise())
    assert part.infer(x, rows, CLIMB, noise()).z[3, 0] == 11


def test_a_memory_refuses_what_it_cannot_use() -> None:
    part = Remembered()
    with pytest.raises(UserError, match='batches with "index"'):
        part.infer(data(), None, CLIMB, noise())
    part.set_extra_state({"memory": torch.zeros(8, 5)})
    with pytest.raises(UserError, match="holds latents of 5 coordinates, but the model has 2"):
        part.infer(data(), torch.arange(6), CLIMB, noise())
    for nonsense in (torch.zeros(2, 2, 2), torch.zeros(2, dtype=torch.int64), "memory"):
        with pytest.raises(UserError, match="not a table of latents"):
            part.set_extra_state({"memory": nonsense})


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_weight_scales_the_gradient_and_keeps_the_value(weight: float) -> None:
    network, x = encoder(), data()

    def gradient(found: Inferred) -> Tensor:
        assert found.q is not None
        loss = found.z.square().sum() + found.q.mean.sum() + found.q.log_scale.sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

    part = Variational(network)
    whole, weighted = (part.infer(x, None, NO_CHAIN, noise()) for _ in range(2))
    torch.testing.assert_close(weighted.weighted(weight).z, whole.z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        gradient(weighted.weighted(weight)), weight * gradient(whole), rtol=1e-12, atol=1e-12
    )


def test_detached_latents_have_nothing_to_weigh() -> None:
    found = Frozen(encoder()).infer(data(), None, NO_CHAIN, noise())
    assert found.weighted(0.5) is found


def test_a_mirror_image_is_a_row_of_its_own() -> None:
    torch.manual_seed(0)
    model = LatentMLE(
        GaussianLikelihood(MLPGenerator(2, [1, 3, 3], hidden=[5])),
        StandardNormal(2),
        Langevin(1, 0.1),
        Langevin(2, 0.1),
        AdamGroups({"generator": 1e-3}),
        Remembered(),
        noise_shards=2,
    ).double()
    rows = {"x": data(), "index": torch.arange(6), "flipped": torch.zeros(6, dtype=torch.bool)}
    plain = model.infer(rows["x"], rows, 0).z
    flipped = {**rows, "x": data().flip(-1), "flipped": torch.ones(6, dtype=torch.bool)}
    fresh = model.infer(flipped["x"], flipped, 0).z
    other = LatentMLE(**{**model._init_arguments, "inference": Remembered()}).double()
    assert torch.equal(
        other.infer(flipped["x"], flipped, 0).z, fresh
    )  # it did not start at the latents of the image
    assert not torch.equal(plain, fresh)
    memory = model.inference.get_extra_state()["memory"]
    assert torch.equal(memory[0:12:2], plain)
    assert torch.equal(memory[1:12:2], fresh)


def test_an_mlp_is_mirrored() -> None:
    found = mirror_encoder(MLPGenerator(2, [1, 4, 4], hidden=[8, 16]))
    widths = [layer.out_features for layer in found.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths == [16, 8, 4]
    assert found.in_shape == (1, 4, 4)


@pytest.mark.parametrize(("shape", "start"), [([3, 32, 32], 4), ([3, 32, 32], 8), ([1, 28, 28], 7)])
def test_a_convolutional_generator_is_mirrored(shape: list[int], start: int) -> None:
    found = mirror_encoder(ConvGenerator(5, shape, channels=[12, 8, 4], start=start))
    assert found(torch.zeros(2, *shape)).mean.shape == (2, 5)
    widths = [layer.out_channels for layer in found.net if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [4, 8, 12]


def test_what_cannot_be_mirrored_is_named() -> None:
    small, large = (BottomLayer(MLPGenerator(2, [1, side, side], [4]), [2, 3]) for side in (64, 65))
    assert mirror_encoder(small).latent_dim == 5
    with pytest.raises(ValueError, match="no encoder can be made from BottomLayer"):
        mirror_encoder(large)


def test_an_encoder_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 latent coordinates but the encoder gives 2"):
        LatentMLE(
            GaussianLikelihood(MLPGenerator(3, [1, 3, 3], hidden=[5])),
            StandardNormal(3),
            Langevin(1, 0.1),
            None,
            AdamGroups({"generator": 1e-3, "encoder": 1e-3}),
            Variational(encoder()),
        )
