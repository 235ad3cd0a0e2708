"""Broken arguments, included files, checkpoints and data: one line, exit status 2, nothing written."""

from __future__ import annotations

import copy
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

import lebm
from lebm.__main__ import main
from tests.cli.conftest import Run
from tests.cli.test_errors import TINY, put, refused
from tests.distributed import run_processes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--trainer.max_epoch", "3"],
            ("trainer.max_epoch: no such setting", "did you mean 'trainer.max_epochs'?"),
        ),
        (["--latnt_dim=3"], ("unknown argument --latnt_dim", "did you mean 'latent_dim'?")),
        (["extra"], ("unknown argument extra",)),
        (["--trainer.max_epochs"], ("--trainer.max_epochs needs a value",)),
        (["--trainer.max_epochs", "many"], ("trainer.max_epochs", "whole number", "'many'")),
        (["--latent_dim", "x"], ("latent_dim", "whole number")),
        (
            ["--model.init_args.prior_sampler.init_args.stepss", "3"],
            ("Langevin has no argument 'stepss'", "did you mean 'steps'?"),
        ),
        (["--model.init_args.prior_sampler", "wicked.Sampler"], ("wicked.Sampler", "add --trust wicked")),
        (["--trainer.callbacks+=wicked.Callback"], ("wicked.Callback", "add --trust wicked")),
        (["-c", "missing.yaml"], ("no recipe 'missing.yaml'",)),
        (["-c", "."], ("is a folder",)),
        (["--run_dir", "tiny.yaml"], ("tiny.yaml: a file, not a folder",)),
        (
            ["--run_dir", "tiny.yaml/x"],
            ("tiny.yaml/x: cannot write the run folder", "choose another folder with --run_dir"),
        ),
        (["--ckpt_path", "nothing.ckpt"], ("nothing.ckpt",)),
        (["--ckpt_path", "tiny.yaml"], ("tiny.yaml",)),
        (["--trainer.accelerator", "abacus"], ("abacus",)),
    ],
)
def test_broken_arguments(
    lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: tuple[str, ...]
) -> None:
    refused(capsys, lebm("fit", "-c", "tiny.yaml", *words), expected)


@pytest.mark.parametrize("name", ["model.yaml", "model"])
def test_included_file_gets_no_further(
    lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    recipe = copy.deepcopy(TINY)
    model = recipe["model"]
    put("init_args", "prior_sampler", "class_path", "wicked.Sampler")(model)
    Path(name).write_text(yaml.safe_dump(model))
    recipe["model"] = name
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    refused(capsys, lebm("fit", "-c", "bad.yaml"), ("wicked.Sampler",))


def test_the_file_that_is_wrong_is_named(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("over.yaml").write_text("data: {class_path: wicked.Data}\n")
    refused(capsys, lebm("fit", "-c", tiny, "-c", "over.yaml"), ("over.yaml:1: data", "wicked.Data"))
    Path("over.yaml").write_text("trainer: {max_epochs: lots}\n")
    refused(capsys, lebm("fit", "-c", tiny, "-c", "over.yaml"), ("over.yaml:1: trainer.max_epochs", "'lots'"))
    Path("over.yaml").write_text("latent_dim: 3\n")
    refused(
        capsys,
        lebm("fit", "-c", "over.yaml", "-c", tiny, "--latent_dim=x"),
        ("lebm: error: latent_dim: ", "'x'"),
    )


def test_trust_lasts_for_one_command(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("validate-recipe", tiny) == 0
    capsys.readouterr()
    refused(capsys, main(["validate-recipe", str(tiny)]), ("tests.cli.toy.ToyData", "add --trust tests"))


def test_checkpoint_never_reaches_the_recipe(
    lebm: Run, wicked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    assert lebm("fit", "-c", "tiny.yaml", "--run_dir", "good", "--trainer.max_steps", 1) == 0
    content = torch.load("good/checkpoints/last.ckpt", weights_only=True)
    content["hyper_parameters"]["init_args"]["prior_sampler"]["class_path"] = "wicked.Sampler"
    torch.save(content | {"lebm_format": 1}, "evil.ckpt")  # the format without a checksum
    assert (
        lebm("test", "-c", "tiny.yaml", "--ckpt_path", "evil.ckpt", "--run_dir", "good") == 0
    )  # its weights alone are read
    assert not wicked.exists()
    capsys.readouterr()
    refused(capsys, lebm("sample", "evil.ckpt"), ("evil.ckpt", "wicked.Sampler", "add --trust wicked"))


def test_debug_shows_the_traceback(
    lebm: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEBM_DEBUG", "1")
    assert lebm("fit", "-c", tiny, "--latent_dim", "x") == 2
    assert "Traceback" in capsys.readouterr().err


def images(folder: Path, n: int = 10) -> None:
    for label in range(2):
        for split in ("train", "test"):
            target = folder / split / f"class{label}"
            target.mkdir(parents=True)
            for number in range(n):
                Image.new("L", (4, 4), 20 * number + label).save(target / f"{number}.png")


def missing(folder: Path) -> None:
    """Leave nothing there."""


def corrupt(folder: Path) -> None:
    images(folder)
    (folder / "train" / "class0" / "3.png").write_bytes(b"\x89PNG and then nothing")


@pytest.mark.parametrize(
    ("prepare", "words", "expected"),
    [
        (missing, [], ("./pictures", "no such file or folder")),
        (Path.mkdir, [], ("./pictures", "no images")),
        (corrupt, [], ("./pictures", "3.png")),
        (images, ["--data.init_args.held_out_label", "7"], ("held_out_label", "7")),
        (images, ["--data.init_args.batch_size", "1000"], ("batch_size 1000", "--data.init_args.batch_size")),
        (images, ["--data.init_args.validation_size", "5000"], ("--data.init_args.validation_size 0.1",)),
    ],
)
def test_broken_data(
    lebm: Run,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    words: list[str],
    expected: tuple[str, ...],
) -> None:
    prepare(Path("pictures"))
    recipe = copy.deepcopy(TINY)
    recipe["data"] = {
        "class_path": "lebm.data.images.ImageData",
        "init_args": {"path": "./pictures", "batch_size": 4},
    }
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    refused(capsys, lebm("fit", "-c", "bad.yaml", *words), expected)


WRONG = ["fit", "-c", "tiny.yaml", "--latent_dim", "x", "--trust", "tests"]
ONE_LINE = "lebm: error: latent_dim: expected a whole number, not 'x'\n"


@pytest.mark.slow
def test_process_prints_one_line_and_exits_with_two(tiny: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "lebm", *WRONG],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert done.stderr == ONE_LINE
    assert done.stdout == ""


def _as_module(folder: Path, words: list[str]) -> object:
    """What ``python -m lebm`` does after its imports, with the true output of the process in two files."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["lebm", *words]
    try:
        runpy.run_path(str(Path(lebm.__file__).with_name("__main__.py")), run_name="__main__")
    except SystemExit as stop:
        sys.stdout.flush()
        return stop.code
    return None


def test_a_forked_process_prints_one_line_and_exits_with_two(tiny: Path) -> None:
    assert run_processes(_as_module, Path.cwd(), WRONG, world_size=1) == [2]
    assert Path("stderr").read_text() == ONE_LINE
    assert Path("stdout").read_text() == ""
