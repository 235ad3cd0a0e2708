"""What may be rebuilt from a description, and that nothing is imported for what may not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lebm import load
from lebm.checkpoint import read
from lebm.checkpoint.rebuild import resolve
from lebm.component import Component, DescriptionError, describe
from lebm.errors import UserError
from lebm.estimators import LatentMLE, LatentModel
from lebm.models import Energy, EnergyPrior, MLPEnergy, StandardNormal
from lebm.samplers import Langevin
from tests.estimators.test_latent_mle import small_model


def save(model: LatentModel, path: Path, **changes) -> Path:
    content = {
        "state_dict": model.state_dict(),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.6.6",
    }
    model.on_save_checkpoint(content)
    torch.save(content | changes, path)
    return path


def test_a_model_is_rebuilt_from_its_description_alone(tmp_path):
    model = small_model(seed=5)
    path = save(model, tmp_path / "a.ckpt")
    for again in (
        load(path),
        LatentMLE.load_from_checkpoint(path, weights_only=True),
        LatentModel.load_from_checkpoint(path),
    ):
        assert describe(again) == describe(model)
        assert all(
            torch.equal(a, b)
            for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
        )
        x = torch.rand(3, 1, 4, 4)
        scores = [m.anomaly_score(x, generator=torch.Generator().manual_seed(0)) for m in (again, model)]
        assert torch.equal(*scores)


@pytest.fixture
def evil_package(tmp_path, monkeypatch):
    """A package on the path that leaves a trace if it is imported."""
    folder = tmp_path / "evil_package"
    folder.mkdir()
    trace = tmp_path / "executed"
    (folder / "__init__.py").write_text(
        f"open({str(trace)!r}, 'w').write('x')\nfrom lebm.models import MLPEnergy\nclass X(MLPEnergy): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield trace
    sys.modules.pop("evil_package", None)


def with_energy(description: dict, energy: object) -> dict:
    changed = {**description, "init_args": dict(description["init_args"])}
    changed["init_args"]["prior"] = {"class_path": "lebm.models.EnergyPrior", "init_args": {"energy": energy}}
    return changed


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        ({"class_path": "evil_package.X", "init_args": {}}, "outside the trusted packages"),
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "outside the trusted packages"),
        (
            {
                "class_path": "lebm.checkpoint.rebuild.importlib.import_module",
                "init_args": {"name": "evil_package"},
            },
            "is not a class",
        ),
        ({"class_path": "lebm.cli.subprocess.Popen", "init_args": {"args": "true"}}, "is not a class"),
        (
            {"class_path": "lebm.checkpoint.rebuild.Path", "init_args": {}},
            "is not a class of a trusted package",
        ),
        ({"class_path": "lebm_evil.X"}, "outside the trusted packages"),
        (
            {"class_path": "lebm.samplers.Langevin", "init_args": {"steps": 1, "step_size": 1.0}},
            "cannot be built: this energy has no attribute latent_dim",
        ),
        (
            {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
            "cannot be built: this energy has no attribute latent_dim",
        ),
        (
            {"class_path": "lebm.models.MLPEnergy", "init_args": {"latent_dim": 3, "evil": 1}},
            "unexpected keyword argument 'evil'",
        ),
        ({"class_path": "lebm.models.MLPEnergy", "init_args": {"latent_dim": "x"}}, "cannot be built"),
        ({"class_path": "lebm.models.MLPEnergy", "init_args": 3}, "expected a class_path with init_args"),
        ({"class_path": "lebm.models.MLPEnergy", "code": "x"}, "expected a class_path with init_args"),
        ({"class_path": ["lebm"]}, "is not a class path"),
        ({"class_path": "lebm..models"}, "is not a class path"),
    ],
)
def test_hostile_descriptions_are_refused_before_anything_is_imported(
    energy, message, evil_package, tmp_path
):
    model = small_model()
    path = save(model, tmp_path / "a.ckpt", hyper_parameters=with_energy(describe(model), energy))
    before = set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not evil_package.exists()
    assert not {name for name in set(sys.modules) - before if not name.startswith(("lebm", "torch"))}


def test_a_trusted_package_is_accepted(evil_package):
    with pytest.raises(UserError, match="--trust evil_package"):
        resolve("evil_package.X")
    assert resolve("evil_package.X", trust=["evil_package"]).__name__ == "X"


def test_a_trusted_module_that_cannot_be_imported_is_told_from_one_without_the_class(evil_package):
    with pytest.raises(
        UserError,
        match=r"no_such.X is not a class that can be imported: no module no_such; run lebm in its folder",
    ):
        resolve("no_such.X", trust=["no_such"])
    with pytest.raises(UserError, match=r"evil_package.Y is not a class of a trusted package"):
        resolve("evil_package.Y", trust=["evil_package"])
    (evil_package.parent / "evil_package" / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"evil_package.broken raises ZeroDivisionError: division by zero"):
        resolve("evil_package.broken.X", trust=["evil_package"])


def test_pickles_damage_and_strangers_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"lebm_format": 1, "state_dict": {}, "hyper_parameters": Path("x")}, path)
    with pytest.raises(UserError, match="more than tensors and plain values"):
        read(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="not a checkpoint written by lebm"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="a.ckpt"):
        read(path)
    save(small_model(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="a.ckpt"):
        read(path)
    with pytest.raises(UserError, match="no such run folder"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match="no checkpoints/last.ckpt"):
        load(tmp_path)
    save(small_model(), path, lebm_format=99)
    with pytest.raises(UserError, match="newer lebm"):
        read(path)


def test_components_without_a_plain_description_are_refused_at_save():
    class Local(Energy):
        pass

    with pytest.raises(DescriptionError, match="defined inside a function or another class"):
        describe(EnergyPrior(Local(), StandardNormal(2)))

    class Holder(Component):
        def __init__(self, inner: object) -> None:
            self.inner = inner

    Holder.__qualname__ = "Holder"
    with pytest.raises(
        DescriptionError,
        match="inner: torch.nn.modules.activation.MultiheadAttention has no plain description",
    ):
        describe(Holder(nn.MultiheadAttention(1, 1)))


def test_a_description_records_defaults_and_the_outermost_constructor():
    class Narrow(MLPEnergy):
        def __init__(self, latent_dim: int) -> None:
            super().__init__(latent_dim, hidden=(3,))

    assert Narrow(2)._init_arguments == {"latent_dim": 2}
    assert describe(Langevin(3, 0.1))["init_args"]["noise_scale"] is None
