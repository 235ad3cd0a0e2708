"""Warnings of chains and priors, and three collapses that are provoked by training."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lebm.callbacks import ChainHealth, DivergenceError, divergence
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import MALA, Langevin
from tests.callbacks.tiny import SHAPE, EchoModel, TinyData, trainer


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
def test_a_healthy_run_has_no_finding_and_stop_ends_the_run(tmp_path: Path) -> None:
    guard = ChainHealth()
    run = trainer(tmp_path / "a", [guard], max_epochs=-1, max_steps=STEPS)
    run.fit(_learner(), datamodule=TinyData())
    assert guard.protocol == {}
    stops = trainer(tmp_path / "b", [ChainHealth(policy="stop")], max_epochs=-1, max_steps=STEPS)
    with pytest.raises(DivergenceError, match="diversity/observations.*all alike"):
        stops.fit(_learner(**COLLAPSES["diversity/observations"]), datamodule=TinyData())
    for wrong in ({"max_energy_gap": 0.0}, {"min_diversity": 1.0}, {"n": 1}, {"policy": "stopp"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ChainHealth(**wrong)  # type: ignore[arg-type]
