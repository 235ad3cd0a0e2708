"""The base of a prior is fitted in time: what learns before and after, resumption, averages, files."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn

import lebm
from lebm import checkpoint
from lebm.data import ImageData
from lebm.errors import UserError
from lebm.estimators import FitBase, PriorModel
from lebm.inference import Inferred
from lebm.models import DiagonalGaussian, GaussianMixture, Prior, StandardNormal
from lebm.samplers.noise import RandomSource, normal
from tests.estimators.test_resume import same
from tests.ground_truth.monte_carlo import z_scores
from tests.reliability.methods import BASES, METHODS, SHAPE, gaussian, model_of, optimizer, part
from tests.reliability.test_exactness import KEYS, trainer

LAST = 4
"""The step after which the methods of :data:`BASES` have their last fit."""


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The rule alone


def test_the_latest_rows_are_kept_and_given_away_at_the_fits() -> None:
    rule = FitBase([2, 5], rows=5)
    fits = []
    for step in range(1, 8):
        assert rule.pending == (step <= 5)
        rule.record(torch.full((2, 1), float(step)))
        fits.append(rule.step())
    assert [None if z is None else z.flatten().tolist() for z in fits] == [
        None,
        [1, 1, 2, 2],
        None,
        None,
        [3, 4, 4, 5, 5],
        None,
        None,
    ]
    assert rule.steps == 5
    assert not len(rule.latents), "nothing is kept after the last fit"


def test_no_more_than_one_epoch_is_kept() -> None:
    """With fewer images than ``rows``, latents that come twice would make a mixture with too many components
    look good on those that are held out.
    """
    rule = FitBase(8, rows=100)
    kept = []
    for step in range(8):
        rule.record(torch.full((3, 1), float(step)), new_epoch=step % 2 == 0)
        kept.append(rule.latents.flatten().tolist()[::3])
        state, rule = rule.state_dict(), FitBase(8, rows=100)
        rule.load_state_dict(state)
    assert kept == [[0], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7]]


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_its_state_goes_on_where_it_was(after: int) -> None:
    def go(rule: FitBase, steps: range) -> list[Any]:
        found = []
        for step in steps:
            rule.record(torch.full((2, 1), float(step)))
            found.append(rule.step())
        return [None if z is None else z.tolist() for z in found]

    whole, first, second = FitBase([2, 5], rows=5), FitBase([2, 5], rows=5), FitBase([2, 5], rows=5)
    expected = go(whole, range(7))
    head = go(first, range(after))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [*head, *go(second, range(after, 7))] == expected


def test_shares_are_taken_of_the_length_of_the_run() -> None:
    """A recipe with shares holds for data of any size. A run that goes on for longer keeps its fits."""
    rule = FitBase([0.25, 0.5, 6])
    assert rule.pending
    assert rule.step() is None, "the length is not known yet"
    with pytest.raises(ValueError, match="give steps, because this run has no end"):
        FitBase(0.5).start(float("inf"))
    rule = FitBase([0.25, 0.5, 6])
    assert rule.start(8) == ""
    assert rule.due == [2, 4, 6]
    rule.step()
    for networks, said in (
        (True, "steps [2, 4, 6]; train"),
        (False, "[2, 4, 6], after which only the energy learns;"),
    ):
        later = FitBase([0.25, 0.5, 6], networks=networks)
        later.load_state_dict(copy.deepcopy(rule.state_dict()))
        assert later.start(8) == later.start(float("inf")) == ""
        doubt = later.start(10)
        assert said in doubt
        assert doubt.endswith("train a new run to have them at [2, 5, 6]")
        assert later.due == [2, 4, 6]
    trial = FitBase(0.5, networks=False)  # of 4 steps, after which a whole run is meant
    trial.start(4)
    for _ in range(3):
        trial.step()
    with pytest.raises(UserError, match=r"new run to have them at \[10\], or set fit_base.at \[2\]"):
        trial.start(20)
    tiny = FitBase(0.1)
    assert tiny.start(3) == ""
    assert tiny.due == [1]


def test_rules_out_of_range_are_named() -> None:
    for at in (0, [], [3, 3], [4, 2], [-1, 2], [0.5, 0.5], 2.5):
        with pytest.raises(ValueError, match="at needs ascending steps from 1 on"):
            FitBase(at)
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        FitBase(1, rows=0)


def test_a_base_without_a_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fit_base needs a base with a fit.* not StandardNormal"):
        model_of("latent_mle", fit_base=part("estimators.FitBase", at=1))
    with pytest.raises(ValueError, match="not GaussianChain"):
        model_of("joint_conditional", fit_base=part("estimators.FitBase", at=1))


# Training


class Watch(Callback):
    """What every step left behind: the networks, and whether the prior was its base."""

    def __init__(self) -> None:
        self.states: list[dict[str, dict[str, Tensor]]] = []
        self.plain: list[bool] = []

    def on_train_start(self, trainer: Any, model: Any) -> None:
        self.look(model)

    def on_train_batch_end(self, trainer: Any, model: Any, *rest: Any) -> None:
        self.look(model)

    def look(self, model: PriorModel) -> None:
        prior, z = model.prior, torch.randn(9, model.latent_dim, generator=source())
        parts = {"likelihood": model.likelihood, "inference": model.inference, "base": model.reference}
        if hasattr(prior, "tilt"):
            parts["energy"] = prior.tilt
        self.states.append(
            {
                name: {
                    key: value.clone() for key, value in module.state_dict().items() if torch.is_tensor(value)
                }
                for name, module in parts.items()
            }
        )
        with torch.no_grad():
            found = model.sample_latent(9, generator=source(1)), prior.log_density(z)
            base = model.reference.reference(9, source(1)), model.reference.log_density(z)
        self.plain.append(all(torch.equal(a, b) for a, b in zip(found, base, strict=True)))

    def moved(self, name: str) -> list[bool]:
        """By step, whether a tensor of the network changed."""
        each = [state[name] for state in self.states]
        return [
            any(not torch.equal(before[key], after[key]) for key in before)
            for before, after in itertools.pairwise(each)
        ]


def run(folder: Path, model: PriorModel, *callbacks: Callback, steps: int = 8, **more: Any) -> Any:
    """Train with two batches an epoch."""
    data = ImageData(
        "embedded:mnist", image_size=8, channels=1, batch_size=24, limit_train=48, limit_eval=24, seed=3
    )
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    this = trainer(folder, steps, list(callbacks), limit_val_batches=0, enable_checkpointing=saves)
    this.fit(model, data, weights_only=True, **more)
    return this


@pytest.mark.parametrize("name", BASES)
def test_first_the_networks_then_the_base_then_the_energy(tmp_path: Path, name: str) -> None:
    model, watch = model_of(name), Watch()
    assert isinstance(model, PriorModel)
    run(tmp_path, model, watch)
    waits = LAST * [False]
    assert watch.moved("energy") == waits + LAST * [True], "the energy waits, and its weight decay too"
    assert watch.moved("base") == [False, True, False, True] + LAST * [False]
    assert watch.plain == LAST * [True] + (LAST + 1) * [False]
    networks = model.fit_base.networks  # type: ignore[union-attr]
    assert watch.moved("likelihood") == LAST * [True] + LAST * [networks]
    if model.encoder is not None:
        assert watch.moved("inference") == LAST * [True] + LAST * [networks]


def test_networks_that_are_left_as_they_are_keep_their_statistics(tmp_path: Path) -> None:
    """With BatchNorm in the generator and in the encoder."""
    generator = part(
        "models.ResNetGenerator", latent_dim=3, out_shape=SHAPE, channels=[4, 4], start=4, norm="batch"
    )
    model, watch = model_of("latent_mle+Variational+base", likelihood=gaussian(generator)), Watch()
    model.encoder.net.insert(1, nn.BatchNorm1d(400))  # type: ignore[union-attr]
    run(tmp_path, model, watch)  # type: ignore[arg-type]
    for name in ("likelihood", "inference"):
        assert any(key.endswith("running_mean") for key in watch.states[0][name])
        assert watch.moved(name) == LAST * [True] + LAST * [False]
    assert watch.moved("energy") == LAST * [False] + LAST * [True]


def test_a_mixture_alone_is_a_prior(tmp_path: Path) -> None:
    mixture = part("models.GaussianMixture", latent_dim=3, components=2)
    rule = part("estimators.FitBase", at=2)
    rates = optimizer("generator")
    model, watch = model_of("latent_mle", prior=mixture, fit_base=rule, optimizer=rates), Watch()
    assert isinstance(model, PriorModel)
    run(tmp_path, model, watch, steps=4)
    assert all(watch.plain)
    assert watch.moved("base") == [False, True, False, False]
    assert watch.moved("likelihood") == 4 * [True]
    assert model.reference.fitted == 2  # type: ignore[union-attr]
    assert model.direct_draws() is None


def test_the_fit_sees_the_latents_of_training(tmp_path: Path) -> None:
    """The mixture is the one that the recorded latents give, under the seed of the model."""
    seen: list[Tensor] = []

    class Keep(Callback):
        def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
            seen.append(model.fit_base.latents.clone())

    model = model_of("latent_mle+base", seed=5)
    assert isinstance(model, PriorModel)
    run(tmp_path, model, Keep(), steps=LAST)
    assert [len(z) for z in seen] == [24, 48, 48, 48], "an epoch has 48 images"
    assert torch.equal(seen[2][24:], seen[3][:24])
    other = model_of("latent_mle+base", seed=5)
    other.fit_base.set_extra_state({"steps": LAST - 1, "latents": seen[-1]})  # type: ignore[union-attr]
    other.after_step(torch.optim.SGD(other.parameters(), 0.1))  # type: ignore[operator]
    same(dict(other.reference.state_dict()), dict(model.reference.state_dict()))  # type: ignore[union-attr]
    fresh = GaussianMixture(3, [1, 3])
    fresh.fit(seen[-1], source())
    z = seen[-1]
    assert abs(float((fresh.log_density(z) - model.reference.log_density(z)).mean())) < 0.5
    assert float(model.reference.log_density(z).mean()) > float(StandardNormal(3).log_density(z).mean())


def test_latents_that_cannot_be_fitted_end_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(base: GaussianMixture, z: Tensor, generator: Any) -> None:
        raise ValueError(f"{len(z)} latents are too few")

    monkeypatch.setattr(GaussianMixture, "fit", fit)
    model = model_of("latent_mle+base", fit_base=part("estimators.FitBase", at=1))
    with pytest.raises(UserError, match="fit_base: no fit after step 1: 24 latents are too few"):
        run(tmp_path, model)  # type: ignore[arg-type]


# Resumption, averages and files


@pytest.mark.parametrize("name", BASES)
def test_a_run_goes_on_before_at_and_after_the_fit(tmp_path: Path, name: str) -> None:
    """At ends of epochs, with averaged weights."""

    def end(folder: Path, *callbacks: Callback, **more: Any) -> dict[str, Any]:
        this = run(folder, model_of(name), EMAWeightAveraging(decay=0.9), *callbacks, **more)  # type: ignore[arg-type]
        this.save_checkpoint(folder / "end.ckpt")
        return checkpoint.read(folder / "end.ckpt")

    every = ModelCheckpoint(tmp_path / "whole", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = end(tmp_path / "whole", every)
    for step in (LAST - 2, LAST, LAST + 2):
        path = tmp_path / "whole" / f"step={step}.ckpt"
        resumed = end(tmp_path / str(step), ckpt_path=path)
        for key in KEYS:
            same(resumed[key], whole[key], f"step {step}: {key}")


def test_averages_of_weights_begin_with_the_fitted_base(tmp_path: Path) -> None:
    model, average, watch = model_of("latent_mle+base"), EMAWeightAveraging(decay=0.9), Watch()
    run(tmp_path, model, average, watch)  # type: ignore[arg-type]
    averaged = average._average_model.module  # type: ignore[union-attr]
    assert averaged.fit_base.steps == LAST
    assert averaged.reference.fitted
    for name, value in watch.states[-1]["base"].items():
        torch.testing.assert_close(averaged.reference.state_dict()[name], value)
    for name, value in watch.states[-1]["energy"].items():
        assert not torch.equal(averaged.prior.tilt.state_dict()[name], value), name


@pytest.mark.parametrize("steps", [1, 3, LAST, 6])
@pytest.mark.parametrize("name", ["latent_mle+base", "multistage_nce+base"])
def test_files_open_with_the_same_draws(tmp_path: Path, name: str, steps: int) -> None:
    model = model_of(name)
    this = run(tmp_path, model, steps=steps)  # type: ignore[arg-type]
    this.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint.write_model_file(tmp_path / "end.safetensors", model, {})
    model.eval()
    for suffix in ("ckpt", "safetensors"):
        opened = lebm.load(tmp_path / f"end.{suffix}")
        assert opened.fit_base.steps == min(steps, LAST)  # type: ignore[union-attr]
        assert opened.prior.asleep == (steps < LAST)  # type: ignore[union-attr]
        assert torch.equal(opened.sample(5, generator=source()), model.sample(5, generator=source()))
        x = torch.rand(3, *SHAPE, generator=source()) * 2 - 1
        assert torch.equal(opened.encode(x, generator=source()), model.encode(x, generator=source()))
        same(opened.chain_settings, model.chain_settings)


def test_a_backbone_needs_no_mixture(tmp_path: Path) -> None:
    """The networks of a plain variational autoencoder, then a base and an energy for its codes."""
    plain = model_of("latent_mle+Variational")
    this = run(tmp_path, plain, steps=1)  # type: ignore[arg-type]
    this.save_checkpoint(tmp_path / "vae.ckpt")
    base = BASES["latent_mle+base"]["init_args"]
    model = model_of(
        "latent_mle+Frozen",
        inference=part("inference.Frozen", backbone=str(tmp_path / "vae.ckpt")),
        prior=base["prior"],
        fit_base=base["fit_base"],
    )
    watch = Watch()
    run(tmp_path, model, watch)  # type: ignore[arg-type]
    for name, value in plain.likelihood.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, model.likelihood.state_dict()[name])  # type: ignore[union-attr]
    assert watch.moved("energy") == LAST * [False] + LAST * [True]
    assert model.reference.fitted  # type: ignore[union-attr]


# A base of a user


class Affine(Prior):
    """A small flow, ``z = A e + b``, that is fitted by gradient descent with torch's own generator."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.matrix = nn.Parameter(torch.eye(latent_dim))
        self.shift = nn.Parameter(torch.zeros(latent_dim))

    @property
    def is_exact(self) -> bool:
        return True

    def log_density(self, z: Tensor) -> Tensor:
        noise = torch.linalg.solve(self.matrix, (z - self.shift).T).T
        return StandardNormal(self.latent_dim).log_density(noise) - torch.linalg.slogdet(self.matrix)[1]

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        noise = normal(generator, (n, self.latent_dim), dtype=self.shift.dtype, device=self.shift.device)
        return noise @ self.matrix.T + self.shift

    def fit(self, z: Tensor, generator: RandomSource = None) -> None:
        adam = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(60):
            adam.zero_grad()
            rows = torch.randint(len(z), (32,))
            (-self.log_density(z[rows]).mean()).backward()
            adam.step()


def test_a_base_of_a_user_with_networks_is_fitted_and_left_alone(tmp_path: Path) -> None:
    def trained(folder: Path) -> tuple[PriorModel, Watch]:
        model, watch = model_of("latent_mle+base"), Watch()
        assert isinstance(model, PriorModel)
        own = lebm.models.EnergyPrior(model.prior.tilt, Affine(3))  # type: ignore[arg-type]
        torch.manual_seed(0)
        model = type(model)(
            model.likelihood,
            own,
            model.prior_sampler,
            model.posterior_sampler,
            model.optimizer_settings,
            fit_base=FitBase(LAST, rows=60),
        )
        run(folder, model, watch)
        return model, watch

    model, watch = trained(tmp_path / "one")
    assert watch.moved("base") == [False, False, False, True] + LAST * [False]
    assert watch.moved("energy") == LAST * [False] + LAST * [True]
    assert not any(parameter.requires_grad for parameter in model.reference.parameters())
    again, _ = trained(tmp_path / "two")
    same(dict(again.prior.state_dict()), dict(model.prior.state_dict()))


# The divergence of an encoder from a fitted base


def test_the_divergence_from_a_mixture_is_unbiased() -> None:
    model = model_of("latent_mle+Variational+base")
    assert isinstance(model, PriorModel)
    base = model.reference
    base.fit(torch.cat([torch.randn(300, 3, generator=source()) + 2, torch.randn(300, 3) * 0.5 - 1]))
    mean = torch.tensor([[1.0, 0.5, -0.5], [-1.0, -0.5, -1.0]])
    log_scale = torch.tensor([[-0.5, 0.0, 0.3], [-1.0, -0.2, -2.0]])
    expected = torch.zeros(2)
    nodes = torch.linspace(-6, 6, 61)
    grid = torch.cartesian_prod(nodes, nodes, nodes)
    weight = torch.softmax(-0.5 * grid.square().sum(dim=1), dim=0)
    for row in range(2):
        z = mean[row] + log_scale[row].exp() * grid
        q = DiagonalGaussian(mean[row : row + 1].expand_as(z), log_scale[row : row + 1].expand_as(z))
        expected[row] = weight @ (q.log_prob(z) - base.log_density(z))
    found = []
    for seed in range(60):
        q = DiagonalGaussian(mean.repeat(200, 1), log_scale.repeat(200, 1))
        z = q.rsample(source(seed))
        with model.noting() as notes:
            found.append(model.encoder_loss(Inferred(z, q)))
        assert torch.equal(notes["kl"], found[-1])
    assert z_scores(torch.stack(found), float(expected.mean())) < 4
    assert float(expected.mean()) > 0.5
    before = model_of("latent_mle+Variational+base")
    plain = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(dim=1).mean()
    assert isinstance(before, PriorModel)
    torch.testing.assert_close(before.encoder_loss(Inferred(mean, DiagonalGaussian(mean, log_scale))), plain)


def test_the_methods_without_the_rule_have_no_idle_networks() -> None:
    for name in METHODS:
        model = model_of(name)
        if isinstance(model, PriorModel):
            assert model.idle_networks == []
