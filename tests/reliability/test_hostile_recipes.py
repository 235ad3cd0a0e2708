"""Recipes that name what is not a class of a trusted package: one line, nothing imported or written."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.__main__ import main
from tests.cli.conftest import Run, lebm, tiny, wicked  # noqa: F401
from tests.cli.test_errors import GENERATOR, MODEL, SAMPLER, TINY, Change, put, refused


def callback(path: str, **arguments: Any) -> Change:
    return put("trainer", "callbacks", [{"class_path": path, "init_args": arguments}])


HOSTILE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "function of the standard library as a callback": (
        callback("os.system", command="touch owned"),
        ("os.system", "add --trust os"),
    ),
    "builtin as a callback": (callback("builtins.eval"), ("builtins.eval", "add --trust builtins")),
    "module hidden behind torch": (callback("torch.os.system"), ("the class posix.system is outside",)),
    "module hidden behind lebm": (
        put(*SAMPLER, "class_path", "lebm.checkpoint.rebuild.importlib.import_module"),
        ("the class importlib.import_module is outside",),
    ),
    "function in an argument": (
        callback("lightning.pytorch.callbacks.LambdaCallback", on_train_start="wicked.function"),
        ("wicked.function", "add --trust wicked"),
    ),
    "function behind torch in an argument": (
        callback("lightning.pytorch.callbacks.LambdaCallback", on_train_start="torch.os.system"),
        ("posix.system is outside",),
    ),
    "logger outside": (
        put("trainer", "logger", {"class_path": "wicked.Callback"}),
        ("wicked.Callback", "add --trust wicked"),
    ),
    "strategy outside": (
        put("trainer", "strategy", {"class_path": "wicked.Callback"}),
        ("wicked.Callback", "add --trust wicked"),
    ),
    "plugin outside": (
        put("trainer", "plugins", [{"class_path": "wicked.Callback"}]),
        ("wicked.Callback", "add --trust wicked"),
    ),
    "profiler outside": (
        put("trainer", "profiler", {"class_path": "wicked.Callback"}),
        ("wicked.Callback", "add --trust wicked"),
    ),
    "data outside": (put("data", "class_path", "wicked.Callback"), ("wicked.Callback", "add --trust wicked")),
    "model outside": (put("model", "class_path", "wicked.Sampler"), ("wicked.Sampler", "add --trust wicked")),
    "optimiser outside": (
        put(*MODEL, "optimizer", {"class_path": "wicked.Sampler"}),
        ("wicked.Sampler", "add --trust wicked"),
    ),
    "interpolation in a circle": (put("latent_dim", "${latent_dim}"), ("latent_dim",)),
    "interpolation deep into itself": (put(*MODEL, "prior", "${model.init_args.prior}"), ("model",)),
    "number that is a text of digits": (put(*GENERATOR, "latent_dim", "9" * 5000), ("latent_dim",)),
    "negative width": (put(*GENERATOR, "hidden", [-5]), ("MLPGenerator", "all at least 1")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_recipe(lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    change, expected = HOSTILE[case]
    recipe = copy.deepcopy(TINY)
    change(recipe)
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    files = sorted(map(str, Path().rglob("*")))
    lebm("ls")
    capsys.readouterr()
    status = lebm("fit", "-c", "bad.yaml")
    assert "wicked" not in sys.modules
    assert not os.path.exists("owned")
    assert sorted(map(str, Path().rglob("*"))) == files
    refused(capsys, status, expected)


@pytest.mark.parametrize("kind", ["link to nothing", "link to itself", "folder"])
def test_a_recipe_that_is_no_file(
    lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = Path("bad.yaml")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link to nothing": "nowhere.yaml", "link to itself": "bad.yaml"}[kind])
    refused(capsys, lebm("fit", "-c", "bad.yaml"), ("bad.yaml",))


def test_trust_names_packages_only(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("jsonargparse", "../evil", "os;true", "*", ""):
        assert main(["fit", "-c", "tiny.yaml", "--trust", package]) == 2
        assert "not a package name" in capsys.readouterr().err
