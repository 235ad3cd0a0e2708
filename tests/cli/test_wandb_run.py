"""What a run of Weights & Biases holds: one training, test, evaluation and report, read back offline."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
    """A working folder after training, ``test``, ``evaluate --wandb`` and ``report --wandb``."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch)
        assert main([*FIT, "--trainer.logger.init_args.log_model", "true"]) == 0
        Path("run/model.safetensors").write_bytes(b"exported")
        assert main(["test", "run"]) == 0
        assert main([*EVALUATE, "--wandb"]) == 0
        assert main(["report", "run", "--wandb"]) == 0
        yield folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return Path("run")


def test_all_commands_write_to_one_run(here: Path) -> None:
    recorded = Recorded(here)
    assert len(recorded.ids) == 4
    assert len(set(recorded.ids)) == 1
    assert recorded.projects == ["lebm"] * 4
    assert recorded.exit_codes == [0, 0, 0, 0]


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
        ends = [evaluated[name] for name in (key, f"{key}/low", f"{key}/high")]
        assert ends == [figure[name] for name in ("value", "low", "high")]
    assert evaluated["evaluation"]["method"] == "LatentMLE"
    (shown,) = Recorded(here, 2).tables("tables/evaluation")
    assert len(shown["data"]) == sum(len(suite["figures"]) for suite in suites.values())


def test_the_model_is_an_artifact_of_every_state(here: Path) -> None:
    (trained,) = Recorded(here, 0).models
    (evaluated,) = Recorded(here, 2).models
    assert trained.name == evaluated.name == f"model-{Recorded(here).ids[0]}"
    assert trained.type == "model"
    assert [entry.path for entry in trained.manifest.contents] == ["last.ckpt"]
    assert sorted(entry.path for entry in evaluated.manifest.contents) == ["last.ckpt", "model.safetensors"]
    facts = json.loads(trained.metadata)
    assert facts["method"] == "LatentMLE"
    assert facts["recipe"] == "own.yaml"
    assert facts["figures"]["val/reconstruction_mse"] > 0
    assert any(name.startswith("evaluation/image/") for name in json.loads(evaluated.metadata)["figures"])
    assert Recorded(here, 1).models == []


def test_the_report_is_in_the_run(here: Path) -> None:
    reported = Recorded(here, 3)
    (row,) = (row for row in reported.history if holds(row, "pages/report"))
    page = reported.media(row["pages/report", "path"])
    assert page.read_text() == Path("report.html").read_text()


def test_the_page_lists_every_key(here: Path) -> None:
    """Of pictures, histograms, tables and pages."""
    names = {name if isinstance(name, str) else name[0] for row in Recorded(here).history for name in row}
    ours = {name for name in names if name.split("/")[0] in ("images", "histograms", "tables", "pages")}
    page = (ROOT / "docs" / "wandb.md").read_text()
    listed = {key.replace("val_", "test_") for key in re.findall(r"`([\w/]+)`", page)}
    assert len(ours) >= 9
    assert ours <= listed


def test_every_checkpoint_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)
    assert main([*FIT, "--trainer.logger.init_args.log_model", "all"]) == 0
    artifacts = Recorded(Path("run")).models
    assert len(artifacts) > 2
    assert {artifact.name for artifact in artifacts} == {f"model-{Recorded(Path('run')).ids[0]}"}
    assert json.loads(artifacts[-1].metadata)["method"] == "LatentMLE"


@pytest.fixture
def copied(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run folder in a working folder of its own."""
    shutil.copytree(here, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    return Path("run")


def change_logger(run: Path, change: dict[str, Any]) -> None:
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    recipe["trainer"]["logger"]["init_args"].update(change)
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))


def test_the_run_is_opened_again_by_its_id(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and key are those of the user's environment, whatever the recipe of the folder names."""
    import wandb

    change_logger(copied, {"settings": {"base_url": "http://127.0.0.1:9", "api_key": "other"}})
    asked: list[dict[str, Any]] = []
    real = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: (asked.append(settings), real(**settings))[1])
    assert main(["report", "run", "--wandb"]) == 0
    assert "settings" not in asked[0]
    assert asked[0]["resume"] == "allow"
    assert Recorded(copied, -1).ids[-1] == asked[0]["id"] == Recorded(copied, 0).ids[0]


def test_a_run_without_weights_and_biases_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load((copied / "config.yaml").read_text())
    recipe["trainer"]["logger"] = None
    (copied / "config.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["report", "run", "--wandb"]) == 2
    assert "trained with -c loggers/wandb" in capsys.readouterr().err
    assert not Path("report.html").exists()
    assert main(["report", "run"]) == 0


def holds(row: dict[Any, Any], key: str) -> bool:
    return any(name == key or name[0] == key for name in row)
