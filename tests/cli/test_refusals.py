"""What Lightning, a logger or a checkpoint refuses: one line and status 2, and the run folder as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.cli.conftest import Run
from tests.cli.test_errors import TINY, refused
from tests.cli.test_input_errors import images

GENERATOR = "--model.init_args.likelihood.init_args.generator.init_args"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--trainer.accelerator", "gpu"],
            ("trainer.accelerator gpu: no such device on this machine; use auto",),
        ),
        (
            ["--trainer.accelerator", "gpu", "--trainer.devices", 8, "--trainer.strategy", "ddp"],
            ("trainer.accelerator gpu",),
        ),
        (["--trainer.accelerator", "cuda"], ("trainer.accelerator cuda: no such device on this machine",)),
        (["--trainer.accelerator", "tpu"], ("trainer.accelerator tpu: no such device on this machine",)),
        (["--trainer.devices", 0], ("`Trainer(devices='0')` value is not a valid input",)),
    ],
)
def test_settings_that_the_machine_cannot_follow(
    lebm: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[object],
    expected: tuple[str, ...],
) -> None:
    for backend in ("cuda.CUDAAccelerator", "mps.MPSAccelerator"):
        monkeypatch.setattr(
            f"lightning.pytorch.accelerators.{backend}.is_available", staticmethod(lambda: False)
        )
    refused(capsys, lebm("fit", "-c", "tiny.yaml", *words), expected)


def test_images_of_another_size(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(Path("pictures"))
    recipe = copy.deepcopy(TINY)
    recipe["data"] = {
        "class_path": "lebm.data.images.ImageData",
        "init_args": {"path": "./pictures", "batch_size": 4, "image_size": 8},
    }
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    refused(
        capsys,
        lebm("fit", "-c", "bad.yaml"),
        ("x has the shape (1, 1, 8, 8), but this model takes (B, 1, 4, 4)", "image_size", "out_shape"),
    )
    assert lebm("fit", "-c", "bad.yaml", "--data.init_args.image_size", 4, "--trainer.max_steps", 1) == 0
    capsys.readouterr()
    assert lebm("test", "runs/bad", "--data.init_args.image_size", 8) == 2
    assert "x has the shape (1, 1, 8, 8)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--latent_dim", 3], ("--latent_dim: a resumed run keeps the sizes", "with another --run_dir")),
        (["--latent_dims", "[2, 2]"], ("--latent_dims: a resumed run keeps the sizes of its networks",)),
        (
            [f"{GENERATOR}.hidden", "[5]"],
            ("last.ckpt: the networks of the checkpoint", "generator.net.0.weight", "[8, 2]", "[5, 2]"),
        ),
        (
            [f"{GENERATOR}.hidden", "[8, 8]"],
            ("last.ckpt: the networks of the checkpoint", "generator.net.4.weight"),
        ),
        ([f"{GENERATOR}.hidden", "[8, 16, 8]"], ("last.ckpt: the networks of the checkpoint",)),
    ],
)
def test_other_networks_are_not_resumed(
    lebm: Run,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[object],
    expected: tuple[str, ...],
) -> None:
    before = {
        path: path.read_bytes() for path in (trained / "config.yaml", trained / "checkpoints" / "last.ckpt")
    }
    capsys.readouterr()
    assert lebm("fit", "--resume", trained, "--trainer.max_epochs", 3, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in expected:
        assert part in error, error
    assert before == {path: path.read_bytes() for path in before}


def test_missing_weights_are_refused_too(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network whose weights have names of their own is met only when the weights are loaded; the recipe is
    kept all the same.
    """
    before = (trained / "config.yaml").read_bytes()
    energy = {"class_path": "lebm.models.MLPEnergy", "init_args": {"latent_dim": 1, "hidden": [8]}}
    both = {"class_path": "lebm.models.LayerEnergies", "init_args": {"energies": [energy, energy]}}
    capsys.readouterr()
    assert (
        lebm(
            "fit",
            "--resume",
            trained,
            "--trainer.max_epochs",
            3,
            "--model.init_args.prior.init_args.energy",
            both,
        )
        == 2
    )
    assert "last.ckpt: the networks of the checkpoint differ from the recipe" in capsys.readouterr().err
    assert (trained / "config.yaml").read_bytes() == before


def test_weights_and_biases_without_a_login(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb
    from wandb.errors import UsageError

    def init(**settings: object) -> SimpleNamespace:
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    words = ["-c", "loggers/wandb", "--trainer.logger.init_args.offline", "false"]
    refused(
        capsys,
        lebm("fit", "-c", "tiny.yaml", *words),
        ("Weights & Biases: No API key configured; log in with `wandb login`", "offline"),
    )


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (
            None,
            (
                "runs/joint_hierarchical-mnist_vae: no such run folder or checkpoint; train it first: lebm"
                " fit -c joint_hierarchical/mnist_vae"
            ),
        ),
        (
            "elsewhere",
            (
                "elsewhere: no such run folder or checkpoint; name the run folder or checkpoint of the"
                " trained backbone"
            ),
        ),
    ],
)
def test_a_missing_backbone(
    lebm: Run, capsys: pytest.CaptureFixture[str], backbone: str | None, expected: str
) -> None:
    words = ["--model.init_args.inference.init_args.backbone", backbone] if backbone else []
    refused(
        capsys,
        lebm("fit", "-c", "joint_hierarchical/mnist_two_stage", *words),
        (f"model.init_args.inference.init_args.backbone: {expected}",),
    )


def test_a_sweep_over_an_unknown_argument(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("unknown argument --latent_dimm", "did you mean 'latent_dim'?")
    refused(capsys, lebm("sweep", "-c", tiny, "--over", "latent_dimm", "4,8"), words)
