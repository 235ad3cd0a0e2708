"""``lebm validate-recipe``."""

from __future__ import annotations

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
