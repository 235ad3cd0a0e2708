"""Broken recipes: one line that names file, key or value, exit status 2, nothing written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.utilities import rank_zero_only

from tests.cli.conftest import Run

TINY = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())
MODEL = ("model", "init_args")
GENERATOR = (*MODEL, "likelihood", "init_args", "generator", "init_args")
SAMPLER = (*MODEL, "prior_sampler")
Change = Callable[[dict[str, Any]], None]


def put(*path_and_value: Any) -> Change:
    *path, key, value = path_and_value

    def change(recipe: dict[str, Any]) -> None:
        for part in path:
            recipe = recipe[part]
        recipe[key] = value

    return change


def drop(*path: str) -> Change:
    def change(recipe: dict[str, Any]) -> None:
        for part in path[:-1]:
            recipe = recipe[part]
        del recipe[path[-1]]

    return change


RECIPES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown section": (put("modle", {"a": 1}), ("bad.yaml:", "modle", "did you mean 'model'?")),
    "unknown trainer key": (
        put("trainer", "max_epoch", 3),
        ("bad.yaml:", "trainer.max_epoch", "did you mean 'trainer.max_epochs'?"),
    ),
    "unknown argument": (
        put(*GENERATOR, "hiden", [3]),
        (
            "bad.yaml:",
            "model.likelihood.generator.hiden",
            "MLPGenerator has no argument",
            "did you mean 'hidden'?",
        ),
    ),
    "unknown data argument": (
        put("data", "init_args", {"batchsize": 3}),
        ("data.batchsize", "ToyData", "did you mean 'batch_size'?"),
    ),
    "wrong type": (
        put(*GENERATOR, "latent_dim", "many"),
        ("bad.yaml:", "model.likelihood.generator.latent_dim", "a whole number", "'many'"),
    ),
    "wrong type in a list": (
        put(*GENERATOR, "hidden", ["wide"]),
        ("model.likelihood.generator.hidden", "a whole number", "'wide'"),
    ),
    "wrong type in a mapping": (
        put(*MODEL, "optimizer", "init_args", "lr", {"generator": "fast"}),
        ("model.optimizer.lr", "a number", "'fast'"),
    ),
    "wrong type of the trainer": (
        put("trainer", "max_steps", "many"),
        ("bad.yaml:", "trainer.max_steps", "a whole number", "'many'"),
    ),
    "missing argument": (
        drop(*SAMPLER, "init_args", "steps"),
        ("bad.yaml:", "model.prior_sampler", "Langevin needs steps"),
    ),
    "missing part": (drop(*MODEL, "prior"), ("bad.yaml:", "model", "LatentMLE needs prior")),
    "missing section": (drop("model"), ("bad.yaml", "the section model is missing")),
    "missing data": (drop("data"), ("bad.yaml", "the section data is missing")),
    "missing interpolation key": (
        put(*GENERATOR, "latent_dim", "${latentdim}"),
        (
            "bad.yaml:",
            "model.likelihood.generator.latent_dim",
            "${latentdim} refers to no key",
            "did you mean 'latent_dim'?",
        ),
    ),
    "missing nested interpolation key": (
        put(*GENERATOR, "latent_dim", "${model.size}"),
        ("${model.size} refers to no key",),
    ),
    "wrong class": (
        put(*SAMPLER, "class_path", "lebm.models.MLPEnergy"),
        ("model.prior_sampler", "lebm.models.MLPEnergy does not correspond to a subclass of Sampler"),
    ),
    "class that does not exist": (
        put(*SAMPLER, "class_path", "lebm.samplers.Langevn"),
        ("model.prior_sampler", "no such class lebm.samplers.Langevn", "did you mean 'Langevin'?"),
    ),
    "short class name that does not exist": (
        put(*SAMPLER, "class_path", "Langevn"),
        ("model.prior_sampler", "did you mean 'Langevin'?"),
    ),
    "no class_path": (
        put(*SAMPLER, {"steps": 3, "step_size": 0.1}),
        ("model.prior_sampler", "class_path", "Sampler"),
    ),
    "misspelt class_path": (
        put(*SAMPLER, {"class_pth": "lebm.samplers.Langevin"}),
        ("model.prior_sampler", "class_path", "Sampler"),
    ),
    "misspelt init_args": (
        put(*SAMPLER, {"class_path": "lebm.samplers.Langevin", "init_argz": {"steps": 3, "step_size": 0.1}}),
        (
            "bad.yaml",
            "model.init_args.prior_sampler: 'init_argz' is not allowed next to class_path",
            "did you mean 'init_args'?",
        ),
    ),
    "misspelt init_args of the model": (
        lambda recipe: recipe["model"].update(init_argz=recipe["model"].pop("init_args")),
        ("bad.yaml", "model: 'init_argz' is not allowed next to class_path", "did you mean 'init_args'?"),
    ),
    "misspelt init_args in a list": (
        put(
            "trainer",
            "callbacks",
            [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_arg": {"monitor": "loss"}}],
        ),
        ("trainer.callbacks[0]: 'init_arg' is not allowed", "did you mean 'init_args'?"),
    ),
    "argument beside the class": (
        put(*SAMPLER, {"class_path": "lebm.samplers.Langevin", "steps": 3}),
        ("model.init_args.prior_sampler: 'steps' is not allowed next to class_path", "below init_args"),
    ),
    "none of the allowed words": (
        put("trainer", "precision", "bf17"),
        ("bad.yaml:", "trainer.precision: expected one of", "bf16-mixed", "'bf17'"),
    ),
    "none of the allowed words of a class": (
        put(
            "trainer",
            "callbacks",
            [{"class_path": "lebm.callbacks.Divergence", "init_args": {"policy": "stopp"}}],
        ),
        ("trainer.callbacks.policy: expected one of stop, recover, not 'stopp'",),
    ),
    "class of the tests that is no energy": (
        put(*MODEL, "prior", "init_args", "energy", "class_path", "tests.cli.toy.ToyData"),
        ("model.prior.energy", "tests.cli.toy.ToyData does not correspond to a subclass of Energy"),
    ),
    "module that does not exist": (
        put(*SAMPLER, "class_path", "lebm.smplers.Langevin"),
        ("model.prior_sampler", "no such class lebm.smplers", "did you mean 'samplers'?"),
    ),
    "unknown callback argument": (
        put(
            "trainer",
            "callbacks",
            [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"patence": 3}}],
        ),
        ("trainer.callbacks", "EarlyStopping", "patence"),
    ),
    "value out of range": (
        put(*SAMPLER, "init_args", "step_size", -1.0),
        ("bad.yaml", "Langevin", "step_size must be positive, not -1.0"),
    ),
    "parts that do not fit": (
        put(*GENERATOR, "latent_dim", 5),
        ("LatentMLE", "5 latent coordinates but the prior has 2"),
    ),
    "unknown network": (
        put(*MODEL, "optimizer", "init_args", "lr", {"generatr": 1.0}),
        ("no network 'generatr'",),
    ),
    "class outside the packages": (
        put(*SAMPLER, "class_path", "wicked.Sampler"),
        ("bad.yaml:", "wicked.Sampler", "add --trust wicked"),
    ),
    "class given as a text": (
        put(*SAMPLER, "wicked.Sampler"),
        ("bad.yaml:", "wicked.Sampler", "add --trust wicked"),
    ),
    "class of the standard library": (
        put(*SAMPLER, "class_path", "subprocess.Popen"),
        ("subprocess.Popen", "outside lebm"),
    ),
    "callback outside the packages": (
        put("trainer", "callbacks", [{"class_path": "wicked.Callback"}]),
        ("wicked.Callback", "add --trust wicked"),
    ),
}
TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bad YAML": ("model: [1\ntrainer: }", ("bad.yaml:2", "not valid YAML")),
    "python tag": (
        "model: !!python/object/apply:os.system ['touch owned']",
        ("bad.yaml:1", "not valid YAML", "python/object"),
    ),
    "scalar": ("hello", ("bad.yaml", "expected a mapping")),
    "list": ("[1, 2]", ("bad.yaml", "expected a mapping")),
    "empty": ("", ("bad.yaml", "not an empty file")),
    "not text": ("\udcff\udcfe", ("bad.yaml", "not valid YAML", "utf-8")),
}


def refused(capsys: pytest.CaptureFixture[str], status: int, expected: tuple[str, ...]) -> None:
    """Exactly one line, with all that was expected, and no run folder."""
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.startswith("lebm: error: "), error
    assert error.count("\n") == 1, error
    for part in expected:
        assert part in error, error
    assert len(error) < 400, error
    assert not list(Path("runs").rglob("*"))
    assert not Path("owned").exists()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
def test_a_rank_left_in_the_shell(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Lightning would take this process for a second one, whose metrics nobody writes."""
    monkeypatch.setenv(name, "1")
    if name == "JSM_NAMESPACE_RANK":  # Lightning reads it once, when it is imported
        monkeypatch.setattr(rank_zero_only, "rank", 1)
    refused(capsys, lebm("fit", "-c", tiny), (f"{name}=1 in the environment", f"run unset {name}"))


@pytest.mark.parametrize("case", RECIPES)
def test_broken_recipe(lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    change, expected = RECIPES[case]
    recipe = copy.deepcopy(TINY)
    change(recipe)
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    verb = (
        ("fit", "-c") if len(case) % 2 else ("validate-recipe",)
    )  # they share the parser; half the time is saved
    refused(capsys, lebm(*verb, "bad.yaml"), expected)


@pytest.mark.parametrize("case", TEXTS)
def test_broken_file(lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, expected = TEXTS[case]
    Path("bad.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(capsys, lebm("fit", "-c", "bad.yaml"), expected)
