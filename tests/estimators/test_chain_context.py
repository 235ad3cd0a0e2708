"""What a chain may see and change: the same for every method, whatever mode and precision the model is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lebm.errors import UserError
from lebm.estimators import DualMCMCTeaching, LatentModel
from lebm.estimators.latent_model import both_energies
from lebm.samplers import PersistentChains
from lebm.samplers.base import Sampler
from tests.reliability.methods import METHODS, gaussian, model_of, part

BATCHES = ["latent_mle", "multistage_nce", "joint_conditional"]


def batch(n: int = 6) -> dict[str, Tensor]:
    return {
        "x": torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1,
        "index": torch.arange(n),
    }


def with_batch_norm(method: str, **changed: Any) -> LatentModel:
    """The method with BatchNorm in its generator and spectral norm in its latent energy, if it has one."""
    generator = part(
        "models.ResNetGenerator", latent_dim=3, out_shape=[1, 8, 8], channels=[4, 4], start=4, norm="batch"
    )
    likelihood = gaussian(generator)
    if method == "joint_conditional":
        likelihood = gaussian(part("models.BottomLayer", latent_dims=[3, 2], generator=generator))
    return model_of(method, likelihood=likelihood, **changed)


@pytest.mark.parametrize("method", BATCHES)
def test_chains_leave_no_trace_in_buffers(method: str) -> None:
    """One training step of chains of 3 and 4 transitions is one forward pass of the generator, and running
    statistics say so.
    """
    model = with_batch_norm(method).train()
    model.loss(batch(), 0)
    counts = {
        name: int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")
    }
    assert counts
    assert set(counts.values()) == {1}
    assert all(module.training for module in model.likelihood.modules())  # type: ignore[union-attr]


def test_spectral_norm_takes_one_power_iteration_a_step() -> None:
    energy = part("models.MLPEnergy", latent_dim=3, hidden=[12, 12], spectral_norm=True)
    model = model_of("latent_mle", prior=part("models.EnergyPrior", energy=energy)).train()
    twin = model_of("latent_mle", prior=part("models.EnergyPrior", energy=energy)).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith("_u")}
    model.loss(batch(), 0)
    twin.prior.energy(torch.zeros(2, 3))  # type: ignore[union-attr,operator]
    after, expected = dict(model.named_buffers()), dict(twin.named_buffers())
    for name in before:
        torch.testing.assert_close(after[name], expected[name])
    assert any(not torch.equal(after[name], start) for name, start in before.items())


@pytest.mark.parametrize("method", BATCHES)
def test_the_chain_of_an_image_does_not_depend_on_its_batch(method: str) -> None:
    model, data = with_batch_norm(method).train(), batch()
    other = {**data, "x": torch.cat([data["x"][:1], -data["x"][1:]])}
    ends = [
        model.encode(x["x"], generator=model.sample_noise("encode", x["index"]))[0] for x in (data, other)
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_a_generator_that_is_left_as_it_is_keeps_its_statistics() -> None:
    lr = {"class_path": "lebm.estimators.AdamGroups", "init_args": {"lr": {"energy": 0.001}}}
    model = with_batch_norm("multistage_nce", update_generator_in_stage=False, optimizer=lr).train()
    before = {name: buffer.clone() for name, buffer in model.likelihood.named_buffers()}  # type: ignore[union-attr]
    model.loss(batch(), 0)
    for name, buffer in model.likelihood.named_buffers():  # type: ignore[union-attr]
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("method", [name for name in METHODS if "PersistentChains" in str(METHODS[name])])
def test_answers_leave_the_pool_alone(method: str) -> None:
    model = model_of(method).train()
    model.loss(batch(), 0)
    model.loss(batch(), 1)
    pools = [part for part in model.modules() if isinstance(part, PersistentChains)]
    before = [(pool.calls, pool.state_dict()["pool"].clone()) for pool in pools]
    model.sample(3)
    model.sample_latent(3)
    model.reconstruct(batch(3)["x"])
    for pool, (calls, rows) in zip(pools, before, strict=True):
        assert pool.training
        assert pool.calls == calls
        torch.testing.assert_close(pool.state_dict()["pool"], rows, equal_nan=True, rtol=0, atol=0)


class Watched(Sampler):
    """Remembers what it was asked for, and moves nothing."""

    def __init__(self, steps: int = 3) -> None:
        super().__init__(steps)
        self.seen: list[tuple[torch.dtype, int]] = []

    def _chain(
        self, log_density: Any, start: Tensor, generator: Any, steps: int, want_info: bool
    ) -> tuple[Tensor, None]:
        self.seen.append((start.dtype, steps))
        return start, None


@pytest.mark.parametrize("method", METHODS)
def test_chains_move_in_the_precision_of_the_model_under_autocast(method: str) -> None:
    model = model_of(method).train()
    watched = Watched()
    for name, module in list(model.named_children()):
        if name.endswith("_sampler") and module is not None:
            setattr(model, name, watched)
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(batch(), 0)
        model.sample(2)
        model.encode(batch(2)["x"])
        if isinstance(model, DualMCMCTeaching):  # latents of an encoder of one's own may be in half precision
            model.revise_latents(batch(2)["x"], torch.zeros(2, model.latent_dim, dtype=torch.bfloat16))
    assert watched.seen
    assert {dtype for dtype, _ in watched.seen} == {torch.float32}


@pytest.mark.parametrize("method", ["latent_mle", "multistage_nce", "joint_conditional", "dual_mcmc"])
def test_answers_are_those_of_the_figures(method: str) -> None:
    """Without ``steps`` a latent is found as in validation, in ``evaluation_steps``; training has its own
    number.
    """
    model = model_of(method, evaluation_steps=7).eval()
    model.posterior_sampler = watched = Watched()
    x = batch(2)["x"]
    model.anomaly_score(x)
    model.reconstruct(x)
    model.encode(x)
    model.validation_step(batch(2), 0)
    model.encode(x, steps=0)
    assert {steps for _, steps in watched.seen[:-1]} == {7}
    assert method == "dual_mcmc" or watched.seen[-1][1] == 0


def test_energies_that_are_compared_have_single_precision() -> None:
    def contrast(energy: Callable[[Tensor], Tensor], up: Tensor, down: Tensor) -> Tensor:
        positive, negative = both_energies(energy, up, down)
        return positive.mean() - negative.mean()

    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0].to(torch.bfloat16)

    up, down = torch.tensor([[100.0], [101.0], [102.0]]), torch.tensor([[100.0], [100.0]])
    gap = contrast(Coarse(), up, down)
    assert gap.dtype == torch.float32
    assert float(gap) == 1.0
    up = torch.tensor([[200.0]] * 3 + [[201.0]])
    assert float(contrast(Coarse(), up, down[:1] * 2)) == 0.25
    assert contrast(lambda x: x[:, 0], up.double(), down.double()).dtype == torch.float64


def test_clipping_by_value_is_refused() -> None:
    model = model_of("latent_mle")
    with pytest.raises(UserError, match="gradient_clip_algorithm value: networks are clipped by norm only"):
        model.configure_gradient_clipping(torch.optim.SGD(model.parameters(), 0.1), 0.1, "value")
