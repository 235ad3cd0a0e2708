"""A base with abstract methods is an ABC, and a derived class is told the methods that it lacks."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from abc import ABCMeta
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch import Callback

import lebm
from lebm.checkpoint.rebuild import build
from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators import LatentModel, PriorModel, StageRule
from lebm.models import GaussianEncoder, SequenceGenerator
from lebm.samplers import Sampler

VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
TEXT = """\
from lebm.estimators import PriorModel
from lebm.models import Prior

class NoLoss(PriorModel):
    pass

class NoReference(Prior):
    def energy(self, z):
        return z.sum(dim=1)
"""


def classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(lebm.__path__, "lebm."):
        if module.name != "lebm.__main__":
            found = vars(importlib.import_module(module.name)).values()
            yield from (cls for cls in found if inspect.isclass(cls) and cls.__module__ == module.name)


def test_whoever_has_an_abstract_method_is_an_abc() -> None:
    bases = [
        cls
        for cls in classes()
        if any(getattr(value, "__isabstractmethod__", False) for value in vars(cls).values())
    ]
    assert {LatentModel, StageRule, GaussianEncoder, SequenceGenerator, Sampler} <= set(bases)
    for cls in bases:
        assert isinstance(cls, ABCMeta), f"{cls} has abstract methods but is no ABC"
        assert inspect.isabstract(cls)


def test_a_method_has_at_most_twelve_arguments_of_its_own() -> None:
    methods = [cls for cls in classes() if issubclass(cls, LatentModel)]
    assert len(methods) == 6
    for cls in methods:
        explicit = [p.name for p in inspect.signature(cls).parameters.values() if p.kind != VAR_KEYWORD]
        assert len(explicit) <= 12, f"{cls} has {len(explicit)} arguments"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_parts.py").write_text(TEXT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_parts", None)


def test_python_and_a_checkpoint_name_the_missing_methods(own: None) -> None:
    parts = importlib.import_module("own_parts")
    with pytest.raises(TypeError, match=r"abstract class NoLoss .*loss"):
        parts.NoLoss(None, None, None, None, None)
    with pytest.raises(TypeError, match="abstract class PriorModel"):
        PriorModel(None, None, None, None, None)  # type: ignore[abstract, arg-type]
    for path in ("own_parts.NoLoss", "lebm.estimators.PriorModel"):
        with pytest.raises(UserError, match=f"model: {path.rpartition('.')[2]} cannot be built: .*loss"):
            build({"class_path": path, "init_args": {}}, LatentModel, trust=["own_parts"])


@pytest.mark.parametrize("verb", [["fit", "-c"], ["validate-recipe"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "own_parts.NoLoss"], "own_parts.NoLoss is abstract: it does not define loss"),
        (
            ["--model.init_args.prior", "own_parts.NoReference"],
            "own_parts.NoReference is abstract: it does not define log_density, reference",
        ),
        (["--model", "lebm.estimators.PriorModel"], "PriorModel is abstract: it does not define loss"),
    ],
)
def test_the_command_line_names_the_missing_methods(
    own: None, capsys: pytest.CaptureFixture[str], verb: list[str], words: list[str], message: str
) -> None:
    from lebm.cli.dispatch import run

    assert run([*verb, "quickstart", "--trust", "own_parts", "--run_dir", "runs/none", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error
    assert not Path("runs").exists()


def test_a_recipe_names_the_missing_methods_with_the_line(
    own: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from lebm.cli.dispatch import run

    Path("mine.yaml").write_text("model:\n  class_path: own_parts.NoLoss\n  init_args: {seed: 3}\n")
    assert run(["fit", "-c", "quickstart", "-c", "mine.yaml", "--trust", "own_parts"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines() == [
        "lebm: error: mine.yaml:1: model: own_parts.NoLoss is abstract: it does not define loss"
    ]


@pytest.mark.parametrize("folder", ["callbacks", "estimators", "inference", "models", "samplers"])
def test_every_part_is_exported_by_its_folder(folder: str) -> None:
    package = importlib.import_module(f"lebm.{folder}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(thing) and thing.__module__ == module.name and not name.startswith("_")
            if own and issubclass(thing, (Component, Callback)):
                assert name in package.__all__, f"add {name} to lebm/{folder}/__init__.py and its __all__"
