"""The recipes of sentences: networks of the stated widths, and two training steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lebm.models import CategoricalLikelihood, RecurrentGenerator
from tests.recipes.published import linear
from tests.recipes.test_recipes import TEXT, build, plain_chains, two_steps

GENERATOR = "--model.init_args.likelihood.init_args.generator.init_args"
# embedding, hidden, vocabulary, longest sentence
WIDTHS = {"snli": (128, 256, 10000, 30), "ptb": (128, 512, 10000, 80), "yahoo": (512, 1024, 20000, 200)}
WIDTHS |= {"text_small": (64, 128, 1500, 24), "kjv": (128, 128, 2000, 20)}
WIDTHS["kjv_published"] = WIDTHS["kjv"]
LATENT = 32


def test_all_are_here() -> None:
    assert set(TEXT) == {f"latent_mle/{name}" for name in WIDTHS} | {
        f"{method}/{name}"
        for method in ("multistage_nce", "joint_hierarchical")
        for name in ("text_small", "kjv")
    }


@pytest.mark.parametrize("name", TEXT)
def test_networks_have_the_stated_widths(name: str) -> None:
    embedding, hidden, words, longest = WIDTHS[name.split("/")[1]]
    cli = build(["-c", name])
    likelihood = cli.model.likelihood
    assert isinstance(likelihood, CategoricalLikelihood)
    assert isinstance(likelihood.generator, RecurrentGenerator)
    assert (likelihood.generator.vocabulary_size, likelihood.generator.max_length) == (words, longest)
    assert (cli.datamodule.vocabulary_size, cli.datamodule.max_length) == (words, longest)
    lstm = 4 * hidden * (embedding + LATENT + hidden + 2)
    expected = (
        words * embedding + linear(LATENT, hidden) + lstm + linear(hidden, words - 2)
    )  # no logits for <pad> and <bos>
    assert sum(parameter.numel() for parameter in likelihood.parameters()) == expected
    constant = 1 if name.startswith("multistage_nce/") else 0
    assert sum(p.numel() for p in cli.model.prior.parameters()) == linear(LATENT, 200, 200, 1) - 1 + constant
    assert (cli.model.seed, cli.datamodule.seed) == (cli.config.seed_everything,) * 2


@pytest.mark.parametrize("name", TEXT)
def test_seed_latent_size_and_vocabulary_reach_every_part(name: str) -> None:
    cli = build(
        ["-c", name, "--seed_everything", "7", "--latent_dim", "5", "--data.init_args.vocabulary_size", "77"]
    )
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)
    assert cli.model.likelihood.latent_dim == cli.model.prior.latent_dim == 5
    assert cli.model.likelihood.generator.vocabulary_size == cli.datamodule.vocabulary_size == 77


def small(name: str, folder: Path) -> list[str]:
    """Narrow networks and a handful of sentences."""
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.txt").write_text(
            "\n".join(f"the verse of number {row} is {'very ' * (row % 5)}short ." for row in range(16))
        )
    text_column = "--data.init_args.text_column=null"
    active = ".active.init_args" if name.startswith("multistage_nce/") else ""
    words = [f"--model.init_args.prior.init_args.energy.init_args{active}.hidden=[8, 8]", text_column]
    networks = [GENERATOR] + (
        ["--model.init_args.inference.init_args.encoder.init_args"]
        if name.startswith("joint_hierarchical/")
        else []
    )
    words += [f"{network}.{width}=8" for network in networks for width in ("embedding", "hidden")]
    changed = {"path": folder, "vocabulary_size": 30, "batch_size": 8, "eval_batch_size": 8}
    return [*words, *(f"--data.init_args.{key}={value}" for key, value in changed.items())]


@pytest.mark.parametrize(
    "name",
    [name if name.endswith("text_small") else pytest.param(name, marks=pytest.mark.slow) for name in TEXT],
)
def test_two_steps_of_training(name: str, tmp_path: Path) -> None:
    words = ["-c", name, *small(name, tmp_path / "data")]
    summary = two_steps(words, tmp_path / "run", plain_chains(name))
    assert summary["status"] == "finished"
    assert summary["steps"] == 2
    assert summary["data"]["vocabulary"] <= 30
    assert len((tmp_path / "run" / "samples" / "latest.txt").read_text().splitlines()) == 20
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
