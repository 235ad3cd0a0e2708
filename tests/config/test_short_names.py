"""Classes named without their module: they are those of lebm, and recipes with long names mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import lebm.callbacks
import lebm.data
import lebm.estimators
import lebm.inference
import lebm.models
import lebm.samplers
from lebm.callbacks import ChainHealth, Divergence
from lebm.cli.dispatch import run
from lebm.config import recipes
from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request
from tests.recipes.test_recipes import CONTENT, build

ROOMS = (lebm.callbacks, lebm.data, lebm.estimators, lebm.inference, lebm.models, lebm.samplers)
LOGGERS = {"TensorBoardLogger", "WandbLogger"}
HOME = {name: f"{room.__name__}.{name}" for room in ROOMS for name in room.__all__}
HOME |= {name: f"lightning.pytorch.loggers.{name}" for name in LOGGERS}


def named(value: Any, key: str = "") -> Iterator[str]:
    """Every class that a recipe names."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from named(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from named(item, key)
    elif key in ("class_path", "callbacks") and value:
        yield value


def long(value: Any, key: str = "") -> Any:
    """The recipe as it was written with the full paths of its classes."""
    if isinstance(value, dict):
        return {name: long(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [long(item, key) for item in value]
    if key == "callbacks" and value:
        return {"class_path": HOME[value]}
    return HOME[value] if key == "class_path" else value


def resolved(words: list[str]) -> tuple[Any, RecipeCLI]:
    cli = build(words)
    return yaml.safe_load(cli.parser.dump(cli.config, skip_unset=False, skip_validation=True)), cli


def test_every_class_of_every_recipe_has_a_short_name() -> None:
    used = {name for content in CONTENT.values() for name in named(content)}
    assert {"LatentMLE", "Langevin", "ImageData", "SampleGrid", "WandbLogger"} <= used
    assert used <= set(HOME)


def test_short_names_are_unambiguous() -> None:
    classes = [name for room in ROOMS for name in room.__all__]
    assert len(classes) == len(set(classes))
    assert not LOGGERS & set(classes)


# together these name every kind of part; `short` of the others is the same parser at work
@pytest.mark.parametrize(
    "name", ["latent_mle/mnist", "joint_hierarchical/kjv", "multistage_nce/toy2d", "dual_mcmc/celeba64"]
)
def test_long_names_mean_the_same(name: str, tmp_path: Path) -> None:
    content = long(CONTENT[name])
    content["model"]["init_args"]["optimizer"] = {
        "class_path": "lebm.estimators.AdamGroups",
        "init_args": content["model"]["init_args"]["optimizer"],
    }
    content["trainer"]["callbacks"].append({"class_path": "lebm.callbacks.ChainHealth"})
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(content))
    short, _ = resolved(["-c", name, "--run_dir", "runs/x"])
    full, _ = resolved(["-c", str(path), "--run_dir", "runs/x"])
    guard = full["trainer"]["callbacks"].pop()
    assert guard["class_path"] == "lebm.callbacks.ChainHealth"
    assert short == full
    assert all(part.startswith("lebm.") for part in named(short))


@pytest.mark.parametrize("name", sorted(lebm.callbacks.__all__))
def test_a_short_name_is_that_of_lebm_and_not_of_lightning(name: str) -> None:
    import lightning.pytorch.callbacks

    assert not hasattr(lightning.pytorch.callbacks, name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("class_path: MLPEnergy", "class_path: MLPEnegy"),
            "'MLPEnegy' is not a known class; did you mean 'MLPEnergy'?",
        ),
        (("class_path: LatentMLE", "class_path: LatentMEL"), "did you mean 'LatentMLE'?"),
        (("class_path: ImageData", "class_path: ImagData"), "did you mean 'ImageData'?"),
        (("ReconstructionGrid,", "ReconstructionGird,"), "did you mean 'ReconstructionGrid'?"),
    ],
)
def test_a_misspelt_short_name_is_one_line(
    change: tuple[str, str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(
        path.read_text()
        for path in (recipes.find("latent_mle/mnist_normal_base"), recipes.find("data/mnist"))
    ).replace("include:", "#")
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace(*change, 1))
    assert path.read_text() != text
    assert run(["fit", "-c", str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line


def test_a_misspelt_class_of_the_command_line_is_not_blamed_on_the_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["fit", "-c", "quickstart", "--model.init_args.prior_sampler.class_path", "Langevn"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    expected = "model.prior_sampler: 'Langevn' is not a known class; did you mean 'Langevin'?"
    assert line == f"lebm: error: {expected}"


def test_every_run_has_both_guards_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("over.yaml").write_text(
        "trainer:\n  callbacks:\n    - {class_path: ChainHealth, init_args: {max_energy_gap: 7}}\n"
    )

    def guards(*words: str) -> list[Any]:
        cli = RecipeCLI(read_request("fit", ["-c", "quickstart", *words]))
        kinds = (ChainHealth, Divergence)
        return [part for part in cli.trainer.callbacks if isinstance(part, kinds)]  # type: ignore[attr-defined]

    assert [type(guard) for guard in guards()] == [ChainHealth, Divergence]
    changed = guards("-c", "over.yaml")
    assert [type(guard) for guard in changed] == [ChainHealth, Divergence]
    assert changed[0].max_energy_gap == 7
    assert not any(re.search("ChainHealth|Divergence", path.read_text()) for path in recipes.names().values())
