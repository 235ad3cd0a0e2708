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

ROOMS = ("lebm.samplers", "lebm.density_ratio", "lebm.metrics", "lebm.plots", "lebm.models", "lebm.data")
"""Packages in which every public class and function has an example."""


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


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_and_function_has_an_example(room):
    """A function may share the example of the module that defines it."""
    package = importlib.import_module(room)
    lacking = []
    for name in package.__all__:
        thing = getattr(package, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue  # a type alias has no docstring
        texts = [thing.__doc__]
        if inspect.isfunction(thing):
            texts.append(inspect.getmodule(thing).__doc__)
        if not any("Example:\n" in (text or "") and ">>> " in (text or "") for text in texts):
            lacking.append(name)
    assert not lacking, f"{room}: without an Example section: {', '.join(lacking)}"
