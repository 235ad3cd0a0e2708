"""A script of plain PyTorch: modules, loaders and Lightning's own checkpoints, as people have them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lebm
from lebm.component import recorded
from lebm.data import ArrayData
from lebm.errors import UserError, UserNotice
from lebm.estimators import LatentMLE, LatentModel
from lebm.inference import Frozen, Variational
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator, ModuleAutoencoder
from lebm.samplers import Langevin

X = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.3), nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4)))


def model(**parts: Any) -> LatentMLE:
    likelihood = GaussianLikelihood(parts.pop("generator", None) or generator(), sigma=0.3, latent_dim=2)
    energy = parts.pop("energy", None) or nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1))
    given = {"prior_sampler": Langevin(2, 0.4), "posterior_sampler": Langevin(2, 0.1), **parts}
    return LatentMLE(likelihood, EnergyPrior(energy, latent_dim=2), **given)


def fit(model: LatentModel, data: Any, folder: Path) -> tuple[str, list[str]]:
    """Train with Lightning's default checkpoints; the last of them, and what the user was warned of."""
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, data)
    said = [str(w.message) for w in caught if w.category is UserNotice or "batch_transfer" in str(w.message)]
    return trainer.checkpoint_callback.best_model_path, said  # type: ignore[union-attr]


def test_plain_modules_are_saved_and_opened_without_a_word(tmp_path: Path) -> None:
    made = model()
    file, said = fit(made, ArrayData.of({"train": X.numpy()}, batch_size=8), tmp_path)
    assert said == []
    opened = lebm.load(file)
    noise = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(made.eval().sample(3, generator=noise[0]), opened.sample(3, generator=noise[1]))
    slope: Any = opened.likelihood.generator[1]
    assert slope.negative_slope == 0.3, "an argument that no weight shows"


@pytest.mark.parametrize(
    "loader",
    [X, TensorDataset(X), TensorDataset(X, torch.arange(32)), [{"x": x} for x in X]],
    ids=["tensor", "tuple", "tuple with labels", "dictionary"],
)
def test_batches_of_any_form_train_the_same_model(loader: Any, tmp_path: Path) -> None:
    def weights(rows: Any) -> list[Tensor]:
        torch.manual_seed(0)
        made = model()
        fit(made, DataLoader(rows, batch_size=8), tmp_path)
        return list(made.parameters())

    assert all(map(torch.equal, weights(loader), weights([{"x": x} for x in X])))


def test_labels_of_a_tuple_reach_callbacks() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    rows = DataLoader(TensorDataset(X, torch.arange(32)), batch_size=32)
    seen: list[Any] = []
    made = model()
    made.on_validation_batch_end = lambda outputs, batch, number: seen.append(batch)  # type: ignore[method-assign, misc, assignment]
    trainer.validate(made, rows, verbose=False)
    assert torch.equal(seen[0]["label"], torch.arange(32))
    assert torch.equal(seen[0]["index"], torch.arange(32))


def test_a_module_with_arguments_of_its_own_warns_once_or_is_recorded(tmp_path: Path) -> None:
    made = model(energy=Scaled(2.0))
    file, said = fit(made, DataLoader(X, batch_size=8), tmp_path / "a")  # type: ignore[arg-type]
    (line,) = said
    assert "hold weights only, because prior.energy: " in line
    assert "lebm.component.recorded" in line
    with pytest.raises(UserError, match="holds weights only"):
        lebm.load(file)
    again = model(energy=Scaled(2.0))
    again.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    assert all(map(torch.equal, made.parameters(), again.parameters()))
    made = model(energy=recorded(Scaled, 2.0))
    file, said = fit(made, DataLoader(X, batch_size=8), tmp_path / "b")  # type: ignore[arg-type]
    assert said == []
    opened: Any = lebm.load(file, trust=[__name__])
    assert opened.prior.tilt.module.factor == 2.0


def test_a_module_that_was_changed_after_it_was_built_is_not_taken_for_the_one_described(
    tmp_path: Path,
) -> None:
    made = model()
    made.likelihood.generator[1].negative_slope = 0.7  # type: ignore[index]
    assert fit(made, DataLoader(X, batch_size=8), tmp_path)[1] == []  # read back as it is now
    changed: Any = Plain()
    changed.net[1] = nn.ReLU()
    (line,) = fit(model(energy=changed), DataLoader(X, batch_size=8), tmp_path)[1]  # type: ignore[arg-type]
    assert "a module differs from the arguments of its constructor" in line


def test_an_encoder_without_a_chain_needs_no_sampler_and_no_optimiser() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    made = LatentMLE(
        GaussianLikelihood(MLPGenerator(2, [1, 4, 4], hidden=[8])),
        EnergyPrior(MLPEnergy(2, hidden=[8])),
        prior_sampler=Langevin(2, 0.4),
        inference=Variational(encoder),
    )
    assert made.encode(X).shape == (32, 2)
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert {group["name"]: group["lr"] for group in groups} == dict.fromkeys(
        ["generator", "encoder", "energy"], 1e-3
    )


SCRIPT = """
import torch
from torch import nn
from lightning.pytorch import Trainer
import lebm
from lebm.estimators import LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood
from lebm.samplers import Langevin

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 16)
    def forward(self, z):
        return self.net(z).view(-1, 1, 4, 4)

class Mine(LatentMLE):
    def __init__(self, *args, extra=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = extra

model = Mine(
    GaussianLikelihood(Net(), latent_dim=2),
    EnergyPrior(nn.Linear(2, 1), latent_dim=2),
    Langevin(2, 0.4), Langevin(2, 0.1), extra=3,
)
trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(model, torch.utils.data.DataLoader(torch.rand(16, 1, 4, 4) - 0.5, batch_size=8))
opened = lebm.load(trainer.checkpoint_callback.best_model_path, trust=["__main__"])
print(type(opened).__name__, opened.extra, tuple(opened.sample(2).shape))
"""


def test_classes_of_a_script_train_and_are_opened_by_it(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "Mine 3 (2, 1, 4, 4)"
    assert "only that program can open its checkpoints" in run.stderr


class Scaled(nn.Module):
    """An energy whose argument no attribute of a layer shows."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.factor, self.net = scale, nn.Linear(2, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * self.net(z).squeeze(1)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).squeeze(1)


def test_queries_of_a_model_in_training_mode_leave_it_as_it_is() -> None:
    """Statistics of BatchNorm and of spectral norm do not change, and a row does not depend on its batch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Unflatten(1, (1, 4, 4)))
    energy = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8)), nn.Linear(8, 1))
    trained = model(generator=net, energy=energy)
    assert trained.training
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    z = torch.randn(8, 2)
    for query in (trained.decode, trained.observe, lambda z: trained.log_joint(X[: len(z)], z)):
        assert torch.allclose(query(z)[:4], query(z[:4]), atol=1e-6)
    trained.sample(4)
    trained.reconstruct(X[:4])
    assert trained.training
    assert net.training
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name


class Autoencoder(nn.Module):
    """A user's autoencoder, in training mode as it was built, with dropout and statistics."""

    def __init__(self, latents: int = 2) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(16)
        self.encoder = nn.Sequential(nn.Flatten(), norm, nn.Dropout(0.5), nn.Linear(16, latents))
        self.decoder = nn.Sequential(nn.Linear(latents, 16), nn.Unflatten(1, (1, 4, 4)))

    def encode(self, x: Tensor) -> Any:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Any:
        return self.decoder(z)


def frozen_model(autoencoder: nn.Module) -> LatentMLE:
    prior = EnergyPrior(nn.Linear(2, 1), latent_dim=2)
    likelihood = GaussianLikelihood(ModuleAutoencoder(autoencoder, [1, 4, 4]))
    return LatentMLE(likelihood, prior, Langevin(2, 0.4), inference=Frozen())


def test_an_autoencoder_in_training_mode_does_not_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = Autoencoder()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    trained = frozen_model(own)
    fit(trained, ArrayData.of({"train": X}, batch_size=8), tmp_path)
    assert torch.equal(own.encode(X), own.encode(X))  # without dropout
    for name, value in own.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_generator_without_a_shape_has_the_checks_of_others() -> None:
    trained = model()
    for x, message in (
        (X[:, 0], r"x has the shape \(32, 4, 4\), but this model takes \(B, 1, 4, 4\); x.unsqueeze"),
        (X.expand(-1, 3, -1, -1), r"takes \(B, 1, 4, 4\)"),
        (X.mul(127).to(torch.uint8), "x holds uint8"),
        (127 * (X + 1), "images in \\[-1, 1\\]"),
        (X / X.sub(X[3]), "NaN or infinite values in"),
    ):
        with pytest.raises(UserError, match=message):
            trained.encode(x)
    wrong = GaussianLikelihood(MLPGenerator(2, [1, 4, 4], hidden=[8]))
    with pytest.raises(UserError, match=r"gives observations of shape \(1, 4, 4\), but x has .* \(4, 4\)"):
        wrong.log_prob(X[:, 0], torch.zeros(32, 2))


def test_queries_take_doubles_and_a_double_autoencoder_takes_floats() -> None:
    for made in (model(), frozen_model(Autoencoder().eval().double()).eval()):
        for query in (made.encode, made.reconstruct, made.anomaly_score):
            assert query(X.double()).dtype == torch.float32


def test_several_loaders_predict_and_unknown_arguments_are_errors(tmp_path: Path) -> None:
    trained = model()
    path, _ = fit(trained, DataLoader(TensorDataset(X), 16), tmp_path)
    loaders = [DataLoader(TensorDataset(part), 16) for part in (X, X[:16])]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    assert [len(outputs) for outputs in trainer.predict(trained, loaders)] == [2, 1]
    with pytest.raises(TypeError, match="no argument 'map_locaton'"):
        LatentMLE.load_from_checkpoint(path, map_locaton="cpu")


def test_a_limit_of_zero_is_no_limit(tmp_path: Path) -> None:
    """As in Lightning."""
    torch.manual_seed(0)
    ends = []
    for limit in (None, 0.0):
        torch.manual_seed(0)
        trained = model()
        trainer = Trainer(
            max_steps=2, accelerator="cpu", gradient_clip_val=limit, barebones=True, default_root_dir=tmp_path
        )
        trainer.fit(trained, ArrayData.of({"train": X}, batch_size=8))
        ends.append(torch.cat([part.flatten() for part in trained.parameters()]))
    torch.testing.assert_close(ends[0], ends[1])
