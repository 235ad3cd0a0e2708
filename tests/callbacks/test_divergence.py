"""The policy against divergence, piece by piece and under a trainer; whole commands are in tests/cli and
tests/reliability.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from lebm.callbacks import ChainHealth, Divergence, DivergenceError, divergence
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import MALA, Langevin
from tests.callbacks.tiny import SHAPE, EchoModel, TinyData, latent_mle, trainer

NAN = float("nan")


def stub(step: int, every: int = 1, votes: bool | None = None) -> Any:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=step))
    strategy = SimpleNamespace(reduce_boolean_decision=lambda bad, all: votes)
    return SimpleNamespace(
        global_step=step,
        log_every_n_steps=every,
        fit_loop=loop,
        world_size=1 if votes is None else 2,
        strategy=strategy,
    )


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_stops_at_the_step(value: float) -> None:
    guard = Divergence()
    guard.on_before_backward(stub(6), latent_mle(), torch.tensor(1.0))
    with pytest.raises(
        DivergenceError, match=f"the loss is {value} at step 7; the last healthy checkpoint is kept"
    ):
        guard.on_before_backward(stub(7), latent_mle(), torch.tensor(value))


def test_large_is_not_infinite() -> None:
    Divergence().on_before_backward(stub(6), latent_mle(), torch.tensor(3e38))


def test_looks_rarely_where_looking_waits_for_the_device() -> None:
    guard = Divergence()
    elsewhere = torch.empty((), device="meta")
    for step in range(9):
        guard.on_before_backward(stub(step, every=10), latent_mle(), elsewhere)
    with pytest.raises(RuntimeError, match="meta"):  # a meta tensor cannot be looked at, so it was looked at
        guard.on_before_backward(stub(9, every=10), latent_mle(), elsewhere)


def test_processes_decide_together() -> None:
    guard = Divergence()
    with pytest.raises(DivergenceError):
        guard.on_before_backward(stub(0, votes=True), latent_mle(), torch.tensor(1.0))
    guard.on_before_backward(stub(0, votes=False), latent_mle(), torch.tensor(NAN))


@pytest.mark.parametrize("policy", ["stop", "recover"])
def test_broken_data_stop_under_either_policy(policy: Any) -> None:
    guard = Divergence(policy)
    x = torch.zeros(4, 1, 2, 2)
    x[1, 0, 0, 0], x[3, 0, 1, 1] = NAN, float("inf")
    guard.on_train_batch_start(None, None, {"x": x, "index": torch.tensor([9, 5, 2, 7])}, 0)  # type: ignore[arg-type]
    with pytest.raises(
        DivergenceError,
        match=r"the data of row 5, 7 hold values that are not finite at step 2; .* Repair or leave out",
    ):
        guard.on_before_backward(stub(2), latent_mle(), torch.tensor(NAN))


def test_no_broken_weight_is_saved() -> None:
    guard, model = Divergence(), latent_mle()
    state = model.state_dict() | {
        "prior_sampler.pool": torch.full((2,), NAN)
    }  # places of a pool that were never used
    guard.on_save_checkpoint(stub(4), model, {"state_dict": state})
    name = next(iter(dict(model.named_parameters())))
    state[name] = state[name] * NAN
    with pytest.raises(DivergenceError, match=f"{name} is not finite at step 4"):
        guard.on_save_checkpoint(stub(4), model, {"state_dict": state})


@pytest.mark.parametrize(
    "arguments",
    [{"policy": "hope"}, {"max_energy_gap": 0.0}, {"keep_every": 0}, {"shrink": 1.0}, {"max_recoveries": 0}],
)
def test_impossible_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Divergence(**arguments)


class Spoil(Callback):
    """Breaks one thing at one step."""

    def __init__(self, what: str, steps: tuple[int, ...]) -> None:
        self.what = what
        self.steps = steps
        self.seen: dict[int, dict[str, torch.Tensor]] = {}

    def on_before_backward(self, trainer, pl_module, loss) -> None:  # type: ignore[no-untyped-def]
        if self.what == "loss" and trainer.global_step in self.steps:
            loss.data.fill_(NAN)

    def on_after_backward(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
        if self.what == "gradient" and trainer.global_step in self.steps:
            next(pl_module.parameters()).grad.fill_(NAN)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if trainer.global_step - 1 in self.steps:
            if self.what == "parameter":
                next(pl_module.parameters()).data.view(-1)[0] = NAN
            if self.what == "gap":
                pl_module.log("train/energy_gap", 1e6)
                trainer.callback_metrics["train/energy_gap"] = torch.tensor(1e6)


class Watch(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.seen.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})


FAULTS = ["loss", "gradient", "parameter", "gap"]


@pytest.mark.parametrize("fault", FAULTS)
def test_stop_names_the_fault_within_the_step(tmp_path: Path, fault: str) -> None:
    guard = Divergence(max_energy_gap=1e3)
    words = {
        "loss": "the loss is nan",
        "gradient": "the gradient of",
        "parameter": "the parameter",
        "gap": "the energy gap is 1e\\+06",
    }
    step = 2 if fault in ("loss", "gradient") else 3  # before and after the third step
    with pytest.raises(DivergenceError, match=f"{words[fault]}.* at step {step}"):
        trainer(tmp_path, [Spoil(fault, (2,)), guard], max_steps=5).fit(latent_mle(), datamodule=TinyData())


@pytest.mark.parametrize("fault", FAULTS)
def test_recover_goes_back_shrinks_and_goes_on(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard, watch = Divergence("recover", max_energy_gap=1e3, keep_every=2, shrink=0.25), Watch()
    averages = EMAWeightAveraging(decay=0.5)
    model = latent_mle()
    run = trainer(tmp_path, [averages, Spoil(fault, (3,)), guard, watch], max_steps=6)
    with caplog.at_level(logging.WARNING):
        run.fit(model, datamodule=TinyData())
    assert run.global_step == 6
    after = watch.seen
    # the fourth step was undone: the state after it is that of step 2, which was kept, and training went on
    # from there
    assert all(torch.equal(after[3][name], after[1][name]) for name in after[1])
    assert any(not torch.equal(after[4][name], after[3][name]) for name in after[3])
    assert all(
        torch.isfinite(value).all()
        for value in model.state_dict().values()
        if isinstance(value, torch.Tensor)
    )
    assert all(group["lr"] == pytest.approx(0.25e-3) for group in run.optimizers[0].param_groups)
    assert model.prior_sampler.step_scale == model.posterior_sampler.step_scale == 0.25  # type: ignore[union-attr]
    (entry,) = guard.protocol["recoveries"]
    assert entry["back_to"] == 2
    assert float(run.callback_metrics["divergence/recoveries"]) == 1
    assert "back to the state of step 2, learning rates and step sizes times 0.25" in caplog.text


def test_a_state_that_does_not_last_gives_way_to_the_one_before(tmp_path: Path) -> None:
    guard = Divergence("recover", keep_every=3)
    trainer(tmp_path, [Spoil("loss", (7, 8)), guard], max_steps=12, max_epochs=4).fit(
        latent_mle(), datamodule=TinyData()
    )
    assert [entry["back_to"] for entry in guard.recoveries] == [6, 3]


@pytest.mark.parametrize(("faults", "back_to"), [((), []), ((9,), [5]), ((8, 9), [5, 0])])
def test_learning_rates_stay_on_their_schedule(
    tmp_path: Path, faults: tuple[int, ...], back_to: list[int]
) -> None:
    guard, model = Divergence("recover", keep_every=5, shrink=0.25), latent_mle()
    model.optimizer_settings.lr_decay = 0.5  # after each epoch of 4 steps
    run = trainer(tmp_path, [Spoil("loss", faults), guard], max_steps=11, max_epochs=4)
    run.fit(model, datamodule=TinyData())
    assert [entry["back_to"] for entry in guard.recoveries] == back_to
    expected = 1e-3 * 0.5**2 * 0.25 ** len(faults)
    assert all(group["lr"] == pytest.approx(expected) for group in run.optimizers[0].param_groups)


def test_recoveries_are_limited_and_remembered(tmp_path: Path) -> None:
    guard = Divergence("recover", max_recoveries=2)
    with pytest.raises(DivergenceError, match="at step 3 after 2 recoveries"):
        trainer(tmp_path, [Spoil("loss", (1, 2, 3)), guard], max_steps=6).fit(
            latent_mle(), datamodule=TinyData()
        )
    other = Divergence("recover")
    other.load_state_dict(guard.state_dict())
    assert other.protocol == {"recoveries": guard.recoveries}
    assert Divergence().protocol == {}


def test_a_healthy_run_is_left_alone(tmp_path: Path) -> None:
    states = []
    for callbacks in ([], [Divergence("recover", keep_every=2)]):
        model = latent_mle()
        trainer(tmp_path, callbacks, max_steps=6).fit(model, datamodule=TinyData())
        states.append(model.state_dict())
    assert all(
        torch.equal(states[0][name], states[1][name])
        for name, value in states[0].items()
        if isinstance(value, torch.Tensor)
    )


# Warnings of chains and priors, and collapses that are provoked by training


class _Logs(EchoModel):
    def __init__(self, gap: float, nonfinite: float) -> None:
        super().__init__()
        self.gap, self.nonfinite = gap, nonfinite

    def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.log_dict(
            {
                "train/energy_gap": self.gap,
                "mcmc/prior/nonfinite": self.nonfinite,
                "mcmc/prior/displacement": 1e9,
            }
        )
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("gap", "nonfinite", "words"),
    [
        (5.0, 0.0, []),
        (-500.0, 0.0, ["energy runs away"]),
        (torch.nan, 3.0, ["chains diverged", "energy runs away"]),
    ],
)
def test_each_alarm_sounds_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gap: float, nonfinite: float, words: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, logger="lebm"):
        trainer(tmp_path, [ChainHealth()]).fit(_Logs(gap, nonfinite), datamodule=TinyData())
    messages = sorted(record.message for record in caplog.records if record.name == "lebm.callbacks")
    assert len(messages) == len(words)
    assert all(any(word in message for message in messages) for word in words)


STEPS = 60


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "EARLY", 50)


def _learner(energy: Any = None, **changes: Any) -> LatentMLE:
    torch.manual_seed(0)
    parts = {
        "likelihood": GaussianLikelihood(MLPGenerator(2, SHAPE, hidden=[8]), sigma=0.2),
        "prior": EnergyPrior(energy or MLPEnergy(2, hidden=[8])),
        "prior_sampler": Langevin(5, 0.4),
        "posterior_sampler": Langevin(3, 0.3),
        "optimizer": AdamGroups({"generator": 1e-2, "energy": 1e-3}),
    }
    return LatentMLE(**{**parts, **changes})


class _Hole(MLPEnergy):
    """An energy with a deep and narrow minimum, which a chain of the prior falls into."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z) + 0.5 * ((z - 1.0) / 0.02).square().sum(dim=1)


class _Blind(MLPGenerator):
    """A generator that ignores its latent."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(0 * z)


COLLAPSES = {
    "diversity/latents": {"energy": _Hole(2, hidden=[8]), "prior_sampler": Langevin(20, 0.02)},
    "diversity/observations": {"likelihood": GaussianLikelihood(_Blind(2, SHAPE, hidden=[8]), sigma=0.2)},
    "mcmc/prior/acceptance": {"energy": _Hole(2, hidden=[8]), "prior_sampler": MALA(5, 3.0)},
    "train/energy_gap": {"optimizer": AdamGroups({"generator": 1e-2, "energy": 10.0})},
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", COLLAPSES)
def test_a_collapse_is_one_line_and_a_mark_in_the_summary(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = ChainHealth()
    run = trainer(tmp_path, [guard], max_epochs=-1, max_steps=STEPS)
    with caplog.at_level(logging.WARNING, logger="lebm"):
        run.fit(_learner(**COLLAPSES[name]), datamodule=TinyData())
    assert sum(name in record.message for record in caplog.records) == 1
    finding = guard.protocol["findings"][name]
    assert 0 < finding["step"] <= STEPS
    assert finding["reason"] in caplog.text


@pytest.mark.usefixtures("soon")
def test_a_healthy_run_has_no_finding(tmp_path: Path) -> None:
    guard = ChainHealth()
    run = trainer(tmp_path, [guard], max_epochs=-1, max_steps=STEPS)
    run.fit(_learner(), datamodule=TinyData())
    assert guard.protocol == {}
    with pytest.raises(ValueError, match="max_energy_gap"):
        ChainHealth(max_energy_gap=0.0)
