"""What a recipe cannot do though it is a program: trust further packages, or name a host for API keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.__main__ import main
from tests.cli.conftest import Run, lebm, tiny, trained, wicked  # noqa: F401
from tests.reliability.test_hostile_runs import checkpoint

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_a_recipe_cannot_trust(
    lebm: Run, trained: Path, wicked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a function of lebm that reads a checkpoint and takes a list of trusted packages."""

    def change(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["init_args"]["prior_sampler"]["class_path"] = "wicked.Sampler"

    checkpoint(trained, change)
    recipe = yaml.safe_load(Path("tiny.yaml").read_text())
    file = str(trained / "checkpoints" / "last.ckpt")
    method = "lebm.estimators.LatentMLE.load_from_checkpoint"
    for path, arguments, expected in (
        ("lebm.load", {"run_or_file": file}, "model.class_path: lebm.load is not a class"),
        ("lebm.load", {"run_or_file": file, "trust": ["wicked"]}, "lebm.load is not a class"),
        (method, {"checkpoint_path": file, "trust": ["wicked"]}, "load_from_checkpoint"),
    ):
        recipe["model"] = {"class_path": path, "init_args": arguments}
        Path("bad.yaml").write_text(yaml.safe_dump(recipe))
        for verb, words in (("validate-recipe", ["bad.yaml"]), ("fit", ["-c", "bad.yaml"])):
            capsys.readouterr()
            assert lebm(verb, *words) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1, error
            assert expected in error
            assert not wicked.exists()
            assert "wicked" not in sys.modules


def test_an_argument_named_trust_is_refused(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("data: {class_path: tests.cli.toy.TrustingData, init_args: {trust: [os]}}\n")
    assert lebm("fit", "-c", tiny, "-c", "bad.yaml") == 2
    assert "data.init_args.trust: packages are trusted on the command line only" in capsys.readouterr().err


HOSTS = {
    "settings": {
        "class_path": "WandbLogger",
        "dict_kwargs": {"settings": {"base_url": "http://127.0.0.1:9"}},
    },
    "base_url": {"class_path": "WandbLogger", "dict_kwargs": {"base_url": "http://127.0.0.1:9"}},
    "host": {"class_path": "WandbLogger", "dict_kwargs": {"host": "127.0.0.1"}},
    "tracking_uri": {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "http://127.0.0.1:9"}},
    "api_key": {"class_path": "CometLogger", "init_args": {"api_key": "secret"}},
    "save_dir": {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "s3://bucket/runs"}},
}


@pytest.mark.parametrize("key", HOSTS)
@pytest.mark.parametrize("several", [False, True])
def test_a_recipe_names_no_host(
    tiny: Path, capsys: pytest.CaptureFixture[str], key: str, several: bool
) -> None:
    Path("bad.yaml").write_text(
        yaml.safe_dump({"trainer": {"logger": [HOSTS[key]] if several else HOSTS[key]}})
    )
    assert main(["fit", "-c", "tiny.yaml", "-c", "bad.yaml", "--trust", "tests"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f".{key}: it can choose where API keys" in error
    assert not Path("runs").exists()


def test_a_host_that_the_user_typed_is_used(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tiny.parent.resolve() / "wandb-home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    overlay = RECIPES / "loggers/wandb.yaml"
    typed = ("--trainer.logger.init_args.settings", '{"base_url": "http://127.0.0.1:9"}')
    short = ("--trainer.max_steps", 1)
    assert lebm("fit", "-c", tiny, "-c", overlay, *typed, *short) == 0
    capsys.readouterr()
    assert lebm("fit", "--resume", "runs/tiny", "--trainer.max_steps", 2) == 2
    assert "trainer.logger.init_args.settings: it can choose" in capsys.readouterr().err
    assert lebm("fit", "--resume", "runs/tiny", "--trainer.max_steps", 2, *typed) == 0
