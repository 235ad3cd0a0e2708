"""A change of class keeps the references, such as ``${latent_dim}``, to arguments that both classes have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request

OWN = """\
import torch
from lebm.models import Energy, GaussianLikelihood, Generator

class ScaledLikelihood(GaussianLikelihood):
    def __init__(self, generator: Generator, sigma: float = 1.0) -> None:
        super().__init__(generator, sigma)

class RadialEnergy(Energy):
    def __init__(self, latent_dim: int, width: float = 1.0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.scale = torch.nn.Parameter(torch.ones(latent_dim))

    def forward(self, z):
        return (self.scale * z**2).sum(1)

class WideEnergy(RadialEnergy):
    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
"""
PRIOR = "--model.init_args.prior.init_args.energy"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("parts_of_references.py").write_text(OWN)
    overlay = "model: {init_args: {prior: {init_args: {energy: {class_path: parts_of_references.%s}}}}}\n"
    for name in ("RadialEnergy", "WideEnergy"):
        Path(f"{name}.yaml").write_text(overlay % name)


def build(*words: str) -> RecipeCLI:
    with torch.device("meta"):
        return RecipeCLI(
            read_request("fit", ["-c", "quickstart", *words, "--trust", "parts_of_references"]),
            trainer_too=False,
        )


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "RadialEnergy.yaml"],
        [PRIOR, "parts_of_references.RadialEnergy"],
        [f"{PRIOR}=parts_of_references.RadialEnergy"],
        [f"{PRIOR}.class_path", "parts_of_references.RadialEnergy"],
        ["-c", "WideEnergy.yaml"],
        ["-c", "WideEnergy.yaml", "-c", "RadialEnergy.yaml"],
    ],
)
def test_a_new_class_follows_the_reference(own: None, words: list[str]) -> None:
    assert build(*words).model.prior.latent_dim == 12
    later = build(*words, "--latent_dim", "5")
    assert later.model.prior.latent_dim == 5
    assert later.model.likelihood.latent_dim == 5


def test_what_the_overlay_says_itself_holds(own: None) -> None:
    energy = build("-c", "RadialEnergy.yaml", f"{PRIOR}.init_args.width=3").config.model.init_args.prior
    assert energy.init_args.energy.init_args.as_dict() == {"latent_dim": 12, "width": 3.0}


def test_references_below_the_changed_class_are_kept_too(own: None) -> None:
    words = ["--model.init_args.likelihood", "parts_of_references.ScaledLikelihood", "--latent_dim", "5"]
    model = build(*words).model
    assert type(model.likelihood).__name__ == "ScaledLikelihood"
    assert model.likelihood.generator.latent_dim == 5


def test_short_and_long_names_of_one_class_are_no_change() -> None:
    words = [f"{PRIOR}", "lebm.models.MLPEnergy"]
    settings = build(*words).config.model.init_args.prior.init_args.energy.init_args
    assert (settings.latent_dim, settings.hidden, settings.activation) == (12, [200, 200], "gelu")


def test_another_kind_of_data_keeps_the_seed() -> None:
    words = ["-c", "data/verses", "--seed_everything", "9"]
    assert build(*words).config.data.init_args.seed == 9
