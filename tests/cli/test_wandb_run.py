"""What a run of Weights & Biases holds: one training, test, evaluation and report, read back offline.

Evaluation and report are added by the function that docs/wandb.md shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image

from lebm.__main__ import main
from tests.cli.wandb_records import Recorded
from tests.conftest import tiny_recipe
from tests.evaluation.conftest import write_pictures

ROOT = Path(__file__).resolve().parents[2]
CALLBACKS = [
    {"class_path": "SampleGrid", "init_args": {"n": 20}},
    {"class_path": "LatentPicture", "init_args": {"n": 8}},
    {"class_path": "ReconstructionError"},
    {"class_path": "AnomalyDetection"},
]
FIT = ["fit", "-c", "own.yaml", "-c", "loggers/wandb", "-c", "callbacks.yaml", "--run_dir", "run"]
EVALUATE = ["evaluate", "run", "--suite", "image", "--suite", "anomaly", "--n-samples", "40"]
EVALUATE += ["--features", "pixels", "--resamples", "20"]


def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A working folder with a recipe on pictures with a held-out class, and no login of wandb."""
    tiny = tiny_recipe(folder, patch)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        patch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        patch.setenv(name, str(folder / "wandb-home"))
    patch.setenv("WANDB_SILENT", "true")
    write_pictures(Path("pictures"))
    Path("own.yaml").write_text(
        tiny.read_text().replace(
            "  class_path: tests.cli.toy.ToyData",
            "  class_path: lebm.data.ImageData\n"
            "  init_args: {path: ./pictures, image_size: 4, channels: 1, batch_size: 10,\n"
            "    validation_size: 20, held_out_label: 2}",
        )
    )
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": CALLBACKS}}))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder after training, ``test``, ``evaluate``, ``report``, and the function of the page."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch)
        assert main([*FIT, "--trainer.logger.init_args.log_model", "true"]) == 0
        wandb.teardown()  # as the end of a process does: all files are written
        assert main(["test", "run"]) == 0
        wandb.teardown()
        assert main(EVALUATE) == 0
        assert main(["report", "run", "--out", "run/report.html"]) == 0
        (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "wandb.md").read_text(), re.S | re.M)
        patch.setenv("WANDB_MODE", "offline")
        names: dict[str, Any] = {}
        exec(code, names)
        names["attach"]("run", Recorded(Path("run")).ids[0])
        wandb.teardown()
        yield folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return Path("run")


def test_all_commands_write_to_one_run(here: Path) -> None:
    recorded = Recorded(here)
    assert len(recorded.ids) == 3
    assert len(set(recorded.ids)) == 1
    assert recorded.projects == ["lebm"] * 3
    assert recorded.exit_codes == [0, 0, 0]


def test_the_recipe_is_nested_and_callbacks_are_names(here: Path) -> None:
    config = Recorded(here, 0).config
    assert config["model"]["class_path"] == "lebm.estimators.LatentMLE"
    assert config["model"]["init_args"]["prior"]["init_args"]["energy"]["init_args"]["latent_dim"] == 2
    assert config["trainer"]["callbacks"] == [block["class_path"] for block in CALLBACKS]
    stored = yaml.safe_load((here / "config.yaml").read_text())
    assert stored["trainer"]["callbacks"][0]["init_args"]["n"] == 20


def test_pictures_histograms_and_tables_keep_their_keys(here: Path) -> None:
    fit = Recorded(here, 0)
    for key in ("images/samples", "images/latents", "histograms/latents_prior", "tables/samples"):
        rows = [row["trainer/global_step"] for row in fit.history if holds(row, key)]
        assert len(rows) == 2, key
        assert rows == sorted(set(rows))


def test_the_samples_carry_their_step(here: Path) -> None:
    fit = Recorded(here, 0)
    steps = [row["trainer/global_step"] for row in fit.history if holds(row, "tables/samples")]
    for step, shown in zip(steps, fit.tables("tables/samples"), strict=True):
        assert shown["columns"] == ["step", "sample", "image"]
        assert [row[:2] for row in shown["data"]] == [[step, number] for number in range(16)]
        assert {np.asarray(Image.open(row[2])).shape for row in shown["data"]} == {(4, 4, 3)}


def test_the_most_anomalous_rows_of_a_test(here: Path) -> None:
    tested = Recorded(here, 1)
    (shown,) = tested.tables("tables/test_scores")
    assert shown["columns"] == ["row", "class", "anomaly", "score", "image"]
    assert len(shown["data"]) == 25
    scores = [cells[3] for cells in shown["data"]]
    assert scores == sorted(scores, reverse=True)
    assert all(cells[2] == (cells[1] == 2) for cells in shown["data"])
    assert np.asarray(Image.open(shown["data"][0][4])).shape == (4, 4, 3)
    kinds = ("normal", "anomalous")
    assert all(any(holds(row, f"histograms/test_score_{kind}") for row in tested.history) for kind in kinds)


def test_the_summaries_have_values_with_their_ends(here: Path) -> None:
    fit, tested, evaluated = (Recorded(here, attempt).summary for attempt in range(3))
    assert fit["run"]["status"] == "finished"
    assert fit["val/reconstruction_mse"] == pytest.approx(fit["run"]["metrics"]["val/reconstruction_mse"])
    assert "run" not in tested
    assert tested["test"]["metrics"]["test/auroc"] == pytest.approx(tested["test/auroc"])
    suites = json.loads((here / "evaluation.json").read_text())["suites"]
    figures = [figure for figure in suites["anomaly"]["figures"] if figure["name"] == "auroc/anomaly_score"]
    assert len(figures) == 2
    for figure in figures:
        key = f"evaluation/anomaly/{figure['split']}/auroc/anomaly_score"
        ends = [evaluated[f"{key}/{name}"] for name in ("value", "low", "high")]
        assert ends == [figure[name] for name in ("value", "low", "high")]


def test_the_model_is_an_artifact(here: Path) -> None:
    (trained,) = Recorded(here, 0).models
    assert trained.name == f"model-{Recorded(here).ids[0]}"
    assert trained.type == "model"
    assert [entry.path for entry in trained.manifest.contents] == ["last.ckpt"]
    facts = json.loads(trained.metadata)
    assert facts["method"] == "LatentMLE"
    assert facts["recipe"] == "own.yaml"
    assert facts["figures"]["val/reconstruction_mse"] > 0
    assert Recorded(here, 1).models == []


def test_the_report_is_in_the_run(here: Path) -> None:
    reported = Recorded(here, 2)
    (row,) = (row for row in reported.history if holds(row, "pages/report"))
    page = reported.media(row["pages/report", "path"])
    assert page.read_text() == Path("run/report.html").read_text()


def test_the_page_lists_every_key(here: Path) -> None:
    """Of pictures, histograms and tables."""
    names = {name if isinstance(name, str) else name[0] for row in Recorded(here).history for name in row}
    ours = {name for name in names if name.split("/")[0] in ("images", "histograms", "tables")}
    page = (ROOT / "docs" / "wandb.md").read_text()
    listed = {key.replace("val_", "test_") for key in re.findall(r"`([\w/]+)`", page)}
    assert len(ours) >= 8
    assert ours <= listed


def test_every_checkpoint_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)
    assert main([*FIT, "--trainer.logger.init_args.log_model", "all"]) == 0
    wandb.teardown()
    artifacts = Recorded(Path("run")).models
    assert len(artifacts) > 2
    assert {artifact.name for artifact in artifacts} == {f"model-{Recorded(Path('run')).ids[0]}"}
    assert json.loads(artifacts[-1].metadata)["method"] == "LatentMLE"


def holds(row: dict[Any, Any], key: str) -> bool:
    return any(name == key or name[0] == key for name in row)
