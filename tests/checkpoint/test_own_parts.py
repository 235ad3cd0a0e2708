"""A model with parts of the user: what trains can be opened, or training begins with one line that says why
not.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

import lebm
from lebm.__main__ import main
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.errors import UserError, UserNotice
from lebm.estimators import AdamGroups, LatentMLE, LatentModel
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator, StandardNormal
from lebm.samplers import Langevin

MODULE = """
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lebm.estimators import LatentMLE
from lebm.models import Generator, MLPEnergy

if TYPE_CHECKING:
    from nowhere import Widths


class Pretrained(Generator):
    def __init__(self, latent_dim: int, out_shape: list[int], file: Path | str) -> None:
        super().__init__()
        self.latent_dim, self.out_shape = latent_dim, tuple(out_shape)
        self.net = torch.nn.Linear(latent_dim, torch.Size(out_shape).numel())
        self.net.load_state_dict(torch.load(file, weights_only=True))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z).unflatten(1, self.out_shape).tanh()


class SizedByFile(Pretrained):
    def __init__(self, latent_dim: int, out_shape: list[int], file: str) -> None:
        Generator.__init__(self)
        state = torch.load(file, weights_only=True)
        self.latent_dim, self.out_shape = latent_dim, tuple(out_shape)
        self.net = torch.nn.Linear(state["weight"].shape[1], len(state["weight"]))
        self.scale = float(state["bias"].abs().max())


class Penalised(LatentMLE):
    def __init__(self, *args: Any, penalty: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.penalty = penalty


class Scaled(MLPEnergy):
    def __init__(self, scale: float, *sizes: int) -> None:
        super().__init__(sizes[0], hidden=sizes[1:])
        self.scale = scale + float(torch.rand(()))  # reads a value, and draws a random number


class Emptied(MLPEnergy):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__(sizes.pop(0), hidden=sizes)


class Annotated(MLPEnergy):
    def __init__(self, latent_dim: int, hidden: Widths) -> None:
        super().__init__(latent_dim, hidden=hidden)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module ``own_parts`` in the working folder, with a file of weights."""
    (tmp_path / "own_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(2, 16).state_dict(), "w.pt")
    torch.manual_seed(1)
    yield importlib.import_module("own_parts")
    sys.modules.pop("own_parts", None)


def model(
    generator: nn.Module | None = None, energy: nn.Module | None = None, cls: Any = LatentMLE, **given: Any
) -> LatentMLE:
    if generator is None:
        generator = MLPGenerator(2, [1, 4, 4], hidden=[8])
    return cls(
        GaussianLikelihood(generator, sigma=0.3),
        EnergyPrior(MLPEnergy(2, hidden=[8]) if energy is None else energy, StandardNormal(2)),
        prior_sampler=Langevin(2, 0.4),
        posterior_sampler=Langevin(2, 0.1),
        optimizer=AdamGroups({"generator": 1e-3, "energy": 1e-4}),
        **given,
    )


def trained(model: nn.Module, file: str = "m.ckpt", steps: int = 2, **start: Any) -> list[str]:
    """Train, then save; returns what the user was told in training."""
    noise = torch.Generator().manual_seed(0)
    rows = [{"x": torch.rand(1, 4, 4, generator=noise) * 2 - 1, "index": i} for i in range(8)]
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, torch.utils.data.DataLoader(rows, batch_size=4), weights_only=True, **start)  # type: ignore[arg-type]
    trainer.save_checkpoint(file)
    return [str(entry.message) for entry in caught if entry.category is UserNotice]


def same(one: LatentModel, other: LatentModel) -> bool:
    def draws(model: LatentModel) -> Tensor:
        return model.eval().sample(3, generator=torch.Generator().manual_seed(0))

    return torch.equal(draws(one), draws(other))


def compiled(_: Any) -> LatentMLE:
    return model(generator=torch.compile(MLPGenerator(2, [1, 4, 4], hidden=[8]), backend="eager"))  # type: ignore[arg-type]


CASES: dict[str, Callable[[Any], LatentMLE]] = {
    "weights in a constructor": lambda own: model(own.Pretrained(2, [1, 4, 4], "w.pt")),
    "path that is not text": lambda own: model(own.Pretrained(2, [1, 4, 4], Path("w.pt"))),
    "sizes and values of a file": lambda own: model(own.SizedByFile(2, [1, 4, 4], "w.pt")),
    "arguments passed on": lambda own: model(cls=own.Penalised, penalty=0.5, evaluation_steps=3),
    "arguments by position": lambda own: model(energy=own.Scaled(0.5, 2, 8, 4)),
    "list that the constructor empties": lambda own: model(energy=own.Emptied([2, 8])),
    "annotation for type checkers": lambda own: model(energy=own.Annotated(2, [8])),
    "numbers of NumPy": lambda own: model(seed=np.int64(3), evaluation_steps=int(np.float64(2))),
    "compiled part": compiled,
}


@pytest.mark.parametrize("case", CASES)
def test_what_trains_can_be_opened(own: Any, case: str) -> None:
    made = CASES[case](own)
    assert trained(made) == []
    again = lebm.load("m.ckpt", trust=["own_parts"])
    assert type(again) is type(made)
    assert same(again, made)
    assert vars(again).get("penalty") == vars(made).get("penalty")
    lebm.checkpoint.write_model_file("m.safetensors", again, {})
    assert same(lebm.load("m.safetensors", trust=["own_parts"]), made)


def test_a_file_that_a_constructor_reads_must_be_there(own: Any) -> None:
    trained(CASES["weights in a constructor"](own))
    Path("w.pt").unlink()
    with pytest.raises(UserError, match=r"generator: Pretrained cannot be built: .*w\.pt"):
        lebm.load("m.ckpt", trust=["own_parts"])


def test_a_run_with_a_compiled_part_is_resumed(own: Any) -> None:
    plain, wrapped = model(), model()
    wrapped.load_state_dict(plain.state_dict())
    wrapped.likelihood.generator = torch.compile(wrapped.likelihood.generator, backend="eager")
    for made in (plain, wrapped):
        trained(made)
        trained(made, "resumed.ckpt", steps=4, ckpt_path="m.ckpt")
    z = torch.ones(1, 2)
    torch.testing.assert_close(lebm.load("resumed.ckpt").decode(z), plain.decode(z))


class Bowl(nn.Module):
    """An energy that knows nothing of lebm."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(width))

    def forward(self, z: Tensor) -> Tensor:
        return self.width * z.square().sum(dim=1)


class Inside:
    class Energy(MLPEnergy):
        pass


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        (lambda: Bowl(1.0), "prior.energy: tests.checkpoint.test_own_parts.Bowl has no plain description"),
        (lambda: Inside.Energy(2), "prior.energy: a class defined inside a function or another class"),
    ],
)
def test_a_part_that_cannot_be_described_trains_after_one_warning(
    own: Any, capsys: pytest.CaptureFixture[str], energy: Callable[[], nn.Module], reason: str
) -> None:
    made = model(energy=energy())
    (said,) = trained(made)
    assert said.startswith(f"the checkpoints of this model hold weights only, because {reason}")
    assert "\n" not in said
    with pytest.raises(UserError, match=r"m\.ckpt: holds weights only, because .*build the model in Python"):
        lebm.load("m.ckpt")
    assert main(["sample", "m.ckpt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    other = model(energy=energy())
    other.load_state_dict(torch.load("m.ckpt", weights_only=True)["state_dict"])
    assert same(other, made)
    trained(made, "whole.ckpt", steps=4)
    trained(other, "resumed.ckpt", steps=4, ckpt_path="m.ckpt")
    assert other.chain_settings["prior_sampler"]["class_path"] == "lebm.samplers.Langevin"


class Typed(MLPEnergy):
    pass


def test_a_class_of_a_script_is_opened_by_that_script(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Typed", Typed, raising=False)
    for module in ("__main__", "__mp_main__"):  # its name in a process that it starts
        monkeypatch.setattr(Typed, "__module__", module)
        made = model(energy=Typed(2, hidden=[8]))
        (said,) = trained(made)
        assert "lebm.load(FILE, trust=['__main__'])" in said
        with pytest.raises(UserError, match="the class __main__.Typed is .* or trust="):
            lebm.load("m.ckpt")
    monkeypatch.setattr(Typed, "__module__", "__main__")
    assert same(lebm.load("m.ckpt", trust=["__main__"]), made)


def test_the_trial_draws_no_random_number_of_the_run(own: Any) -> None:
    made = CASES["arguments by position"](own)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    made.on_save_checkpoint({})
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_precision_are_opened_in_that_of_the_model(own: Any) -> None:
    made = model()
    content: dict[str, Any] = {
        "state_dict": {name: value.bfloat16() for name, value in made.state_dict().items()}
    }
    made.on_save_checkpoint(content)
    torch.save(content, "m.ckpt")
    again = lebm.load("m.ckpt")
    assert {value.dtype for value in again.parameters()} == {torch.float32}
    assert again.reconstruct(torch.zeros(2, 1, 4, 4)).dtype == torch.float32
