"""Recipes by the command line with nothing switched off, in a terminal and in a pipe.

A small recipe of every method goes through every command, with fewer rows and steps. The slow tests train
thirty steps of every recipe that was run at full length, with its networks, chains and callbacks.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.config import recipes
from tests.screen import shown, visible

LIMITS = {"max_epochs": 1, "check_val_every_n_epoch": 1}
LIMITS |= {f"limit_{part}_batches": n for part, n in (("train", 3), ("val", 2), ("test", 2), ("predict", 2))}
ROWS = {"batch_size": 20, "eval_batch_size": 20}
DIGITS = {"path": "embedded:mnist", "validation_size": 100}
SENTENCES = [
    "SampleSentences",
    "LatentPicture",
    {
        "class_path": "SentenceBounds",
        "init_args": {"n": 4, "chains": 4, "prior_chains": 8, "prior_levels": 2},
    },
    {"class_path": "SentenceQuality", "init_args": {"n": 20, "compared": 10, "steps": 2, "hidden": 8}},
]
LAYERS = [
    *("HierarchicalSamples", "LayerReconstruction", "LatentTraversal"),
    {"class_path": "LayerClassification", "init_args": {"epochs": 1, "hidden": 8, "limit": 40}},
    {"class_path": "LatentAttack", "init_args": {"n": 2, "steps": 2}},
    {"class_path": "LongChain", "init_args": {"lengths": [0, 10], "n": 4}},
]
STAGES = {"stages": {"init_args": {"steps": 2}}, "annealing": {"levels": 2}}
SHORT = {"init_args": {"steps": 2}}
SMALL: dict[str, dict[str, Any]] = {
    "quickstart": {
        "model": {
            "prior_sampler": SHORT,
            "fit_base": {"at": 2, "rows": 100},
            "prior": {"init_args": {"base": {"init_args": {"components": [2, 3]}}}},
        }
    },
    "latent_mle/text_small": {
        "callbacks": SENTENCES,
        "model": {
            "likelihood": {"init_args": {"generator": {"init_args": {"embedding": 8, "hidden": 8}}}},
            "prior_sampler": SHORT,
            "posterior_sampler": SHORT,
        },
    },
    "multistage_nce/toy2d": {
        "data": {"n_train": 200, "n_eval": 60},
        "callbacks": [{"class_path": "StagePicture", "init_args": {"n": 40, "steps": 2}}],
        "model": STAGES,
    },
    "joint_hierarchical/mnist": {
        "data": DIGITS,
        "callbacks": ["SampleGrid", "ReconstructionGrid", "LatentPicture", "ReconstructionError", *LAYERS],
        "model": {"prior_sampler": SHORT},
    },
    "dual_mcmc/mnist": {"data": DIGITS, "model": {"image_sampler": SHORT, "posterior_sampler": SHORT}},
}

MEASURED = [
    name
    for name, path in recipes.names().items()
    if recipes.is_measured(path) and not name.startswith(("prior/", "inference/"))  # overlays of recipes
]


def small(recipe: str) -> dict[str, Any]:
    """What is read after the recipe and makes its numbers smaller."""
    change = SMALL[recipe]
    pictures = {"callbacks": change["callbacks"]} if "callbacks" in change else {}
    return {
        "trainer": {**LIMITS, **pictures},
        "data": {"init_args": {**ROWS, **change.get("data", {})}},
        "model": {"init_args": change.get("model", {})},
    }


def commands(recipe: str) -> list[str]:
    """Every phase of a recipe, in the order of a day's work."""
    if recipe.endswith("toy2d"):  # its data are no pictures
        sampling = ["sample run -n 4 --format npy"]
    else:
        suite = "--suite chains" if "text" in recipe else "--suite image --features pixels --n-samples 20"
        sampling = ["sample run -n 4", f"evaluate run {suite} --limit 20 --resamples 10"]
    return [
        f"fit -c {recipe} -c small.yaml --run_dir run",
        "fit --resume run --trainer.max_epochs 2",
        *(["validate run"] if recipe == "quickstart" else []),
        "test run",
        *sampling,
        "report run --out report.html",
    ]


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("recipe", SMALL)
def test_every_phase(recipe: str, terminal: bool, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small(recipe)))
    status, text = shown(commands(recipe), tmp_path, terminal)
    assert status == 0, text[-4000:]
    run, lines = tmp_path / "run", visible(text)
    for name in ("summary", "test", *(["validate"] if recipe == "quickstart" else [])):
        assert json.loads((run / f"{name}.json").read_text())["status"] == "finished", name
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert list((run / "images").rglob("*.png"))
    assert (tmp_path / "report.html").exists()
    # the last state of the line of each fit stays; nothing is printed into a line
    last = [line for line in lines if re.fullmatch(r"epoch (1/1|2/2)  step [36]/[36]  loss .*", line)]
    assert [line[:8] for line in last] == ["epoch 1/", "epoch 2/"], text[-4000:]
    states = [line for line in lines if re.match(r"epoch \d|\w+ \d+/\d+ batches", line)]
    assert all(re.fullmatch(r"\w+ \d+/\d+( batches|  \S.{,70})", line) for line in states), states
    assert ("\x1b[?25l" in text) is ("\r" in text) is terminal  # the cursor is hidden while a line is redrawn
    if "multistage" in recipe:
        stages = [line for line in lines if re.match(r"stage \d ended after 2 steps", line)]
        assert [int(line.split()[1]) for line in stages] == [1, 2, 3]


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """In their order, in an empty folder, without a network; the trainings and the evaluation are shorter."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [part for part in re.findall(r"```sh\n(.*?)```", readme, re.S) if part.startswith("lebm ls")]
    words = [line.partition("#")[0].split(maxsplit=1)[1].strip() for line in block.splitlines()]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small("quickstart")))
    shorter = {
        "fit -c quickstart": " -c small.yaml",
        "fit -c quickstart --resume": " -c small.yaml",
        "fit -c mine.yaml": " --trainer.max_epochs 1",
        "evaluate runs/quickstart": (
            " --suite image --features pixels --n-samples 20 --limit 20 --resamples 10"
        ),
    }
    commands = [command + shorter.get(command, "") for command in words]
    assert sum(command not in words for command in commands) == len(shorter)
    status, text = shown(commands, tmp_path, terminal=True, timeout=300)
    assert status == 0, text[-4000:]
    assert "2 run(s) in report.html" in text


def thirty_steps(recipe: str, folder: Path) -> dict[str, Any]:
    """Thirty steps in two epochs, each with a validation; a first stage ends with the first."""
    data: dict[str, Any] = {"path": "embedded:mnist", "validation_size": 500} if "mnist" in recipe else {}
    for name in ("kjv", "cifar10"):
        data |= {"path": str(folder / name)} if name in recipe else {}
    stages = {"stages": {"init_args": {"steps": 15}}} if recipe.startswith("multistage_nce/") else {}
    if recipe in ("multistage_nce/mnist", "multistage_nce/mnist_conv"):  # whose energy begins after the fit
        stages["stages"]["init_args"]["steps"] = 3
    limits = {**LIMITS, "max_epochs": 2, "limit_train_batches": 15}
    return {"trainer": limits, "data": {"init_args": data}, "model": {"init_args": stages}}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", MEASURED)
def test_thirty_steps(recipe: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    real = "kjv" in recipe or "cifar10" in recipe
    folder = request.getfixturevalue("data_root") if real else tmp_path
    before = {"joint_hierarchical/mnist_two_stage": ["joint_hierarchical/mnist_vae"]}.get(recipe, [])
    (tmp_path / "thirty.yaml").write_text(yaml.safe_dump(thirty_steps(recipe, folder)))
    words = [f"fit -c {name} -c thirty.yaml" for name in (*before, recipe)]
    run = f"runs/{recipe.replace('/', '-')}"
    sampling = f"sample {run} -n 4 {'--format npy' if recipe.endswith('toy2d') else ''}"
    status, text = shown([*words, sampling, f"report {run}"], tmp_path, terminal=True, timeout=600)
    assert status == 0, text[-4000:]
    lines = visible(text)
    assert [line for line in lines if re.match(r"epoch 2/2  step \d+/\d+  loss ", line)], text[-4000:]
    summary = json.loads((tmp_path / run / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("finished", 2)
    assert any(line.startswith("stage 1 ended after ") for line in lines) is ("multistage" in recipe)
