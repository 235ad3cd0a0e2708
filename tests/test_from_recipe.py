"""`lebm.from_recipe`: the parts that `lebm fit` would train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

import lebm
from lebm.__main__ import main
from lebm.errors import UserError
from tests.conftest import tiny_recipe


def test_three_steps_of_a_trainer_are_those_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path, monkeypatch)
    few = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3"]
    assert main(["fit", "-c", str(recipe), *few, "--trust", "tests", "--run_dir", "run"]) == 0
    model, data = lebm.from_recipe(recipe, trust=["tests"])
    Trainer(max_epochs=-1, max_steps=3, accelerator="cpu", barebones=True, use_distributed_sampler=False).fit(
        model, data
    )
    trained = lebm.load("run", trust=["tests"]).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert set(tmp_path.iterdir()) == {recipe.resolve(), tmp_path / "run"}


def test_settings_and_overlays_change_a_recipe() -> None:
    model, data = lebm.from_recipe(
        "latent_mle/mnist_published",
        "inference/variational",
        settings={"latent_dim": 3, "data.init_args.path": "embedded:mnist", "data.batch_size": 7},
    )
    assert (model.latent_dim, type(model.inference).__name__, data.batch_size) == (3, "Variational", 7)
    again, _ = lebm.from_recipe(
        "latent_mle/mnist_published", "inference/variational", settings={"latent_dim": 3}
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("recipes", "settings", "line"),
    [
        (["quickstrat"], {}, "no recipe 'quickstrat'.*quickstart"),
        (["quickstart"], {"latnet_dim": 3}, "--latnet_dim.*latent_dim"),
        (["quickstart"], {"data.init_args.batch_size": "many"}, "batch_size"),
        ([], {}, "recipe"),
    ],
)
def test_faults_are_one_line(recipes: list[str], settings: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        lebm.from_recipe(*recipes, settings=settings)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_not_trusted_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--trust tests"):
        lebm.from_recipe(tiny_recipe(tmp_path, monkeypatch))
