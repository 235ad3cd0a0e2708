"""``lebm validate-recipe``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_prints_what_would_be_trained(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("validate-recipe", tiny, "--latent_dim", 3) == 0
    shown = capsys.readouterr().out
    assert "LatentMLE, 3 latent coordinates" in shown
    assert f"generator: GaussianLikelihood, {3 * 8 + 8 + 8 * 16 + 16} parameters" in shown
    assert f"energy: EnergyPrior, {3 * 8 + 8 + 8} parameters" in shown
    assert "prior_sampler: Langevin(steps=2, step_size=0.4" in shown
    assert "ToyData(batch_size=4)" in shown
    assert "max_epochs=2" in shown
    assert "run      runs/tiny" in shown
    assert {path.name for path in Path().iterdir()} == {"tiny.yaml"}


def test_needs_no_memory_for_the_weights(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    width = 2_000_000  # 32 TB of weights
    assert (
        lebm(
            "validate-recipe",
            tiny,
            "--model.init_args.prior.init_args.energy.init_args.hidden",
            f"[{width},{width},{width}]",
        )
        == 0
    )
    assert (
        f"{2 * width + width + 2 * (width * width + width) + width:,} parameters" in capsys.readouterr().out
    )


@pytest.mark.parametrize("flag", ["--data.batch_size", "--data.init_args.batch_size"])
def test_arguments_of_the_data_need_no_init_args(
    flag: str, lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("validate-recipe", tiny, flag, 2) == 0
    assert "ToyData(batch_size=2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("tiny.yaml", 2 * 3),
        ("tiny.yaml --trainer.max_steps 7 --trainer.max_epochs 9", 7),
        ("tiny.yaml --trainer.max_epochs 30 --data.batch_size 2 --trainer.accumulate_grad_batches 2", 30 * 3),
        ("tiny.yaml --data.batch_size 8", 2 * 2),
        ("multistage_nce/toy2d --data.batch_size 50 --data.init_args.n_train 200", 40 * 4),
    ],
)
def test_three_steps_are_timed(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], words: str, steps: int
) -> None:
    assert lebm("validate-recipe", *words.split(), "--time") == 0
    shown = capsys.readouterr().out
    pattern = r"time     ([\d.e-]+) s per step; ([\d,]+) steps: ([\d.e-]+) hours, without validation"
    found = re.search(pattern, shown)
    assert found is not None, shown
    seconds, counted, lasts = found.groups()
    assert int(counted.replace(",", "")) == steps
    assert float(lasts) == pytest.approx(float(seconds) * steps / 3600, rel=0.011)
    assert float(seconds) > 0
    assert {path.name for path in Path().iterdir()} == {"tiny.yaml"}


def test_without_the_flag_nothing_is_trained(lebm: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("validate-recipe", "latent_mle/celeba64") == 0  # neither its data nor its memory are here
    assert "time  " not in capsys.readouterr().out
