"""The examples in docstrings must run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import lebm

ROOMS = (
    *("lebm.samplers", "lebm.density_ratio", "lebm.metrics", "lebm.plots", "lebm.models", "lebm.data"),
    *("lebm.callbacks", "lebm.evaluation"),
)
"""Packages in which every public class and function has an example.

The names of lebm.evaluation are public in its modules and not in the package; there every class has one."""


def modules_with_examples() -> list[str]:
    """Names of the modules of lebm whose source has an example."""
    names = [lebm.__name__]
    names += [module.name for module in pkgutil.walk_packages(lebm.__path__, f"{lebm.__name__}.")]
    sources = {name: importlib.util.find_spec(name).origin for name in names}
    return [name for name, source in sources.items() if ">>> " in Path(source).read_text()]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    """Each example starts without names, so that a reader can paste it into a new session."""
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    module = importlib.import_module(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for example in doctest.DocTestFinder().find(module, name, globs={}):
            runner.run(example, out=report.append)
    assert runner.tries > 0, "the examples are in no docstring, so that nothing ran"
    assert runner.failures == 0, "".join(report)


def public_names(room: str) -> list[tuple[str, object]]:
    """What the ``__all__`` of a package lists, or else the classes in the ``__all__`` of its modules."""
    package = importlib.import_module(room)
    if hasattr(package, "__all__"):
        return [(name, getattr(package, name)) for name in package.__all__]
    modules = [
        importlib.import_module(f"{room}.{module.name}") for module in pkgutil.iter_modules(package.__path__)
    ]
    names = [(name, getattr(module, name)) for module in modules for name in module.__all__]
    return [(name, thing) for name, thing in names if inspect.isclass(thing)]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_and_function_has_an_example(room):
    """A function may share the example of the module that defines it."""
    lacking = []
    for name, thing in public_names(room):
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue  # a type alias has no docstring
        texts = [thing.__doc__]
        if inspect.isfunction(thing):
            texts.append(inspect.getmodule(thing).__doc__)
        if not any("Example:\n" in (text or "") and ">>> " in (text or "") for text in texts):
            lacking.append(name)
    assert not lacking, f"{room}: without an Example section: {', '.join(lacking)}"
