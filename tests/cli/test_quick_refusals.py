"""Words that can be checked are checked before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.cli.data_path import check_data
from lebm.data.sources import find_source
from lebm.errors import UserError
from lebm.evaluation.names import SUITE_NAMES
from lebm.evaluation.run import SUITES

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = (
    "import sys\nfrom lebm.__main__ import main\nstatus = main({words!r})\n"
    "print('heavy', sorted({{'torch', 'lightning', 'numpy'}} & set(sys.modules)), 'status', status)"
)


@pytest.mark.parametrize(
    "words",
    [
        "sweep -c quickstart --over latent_dim 1,2 --suite nonsense",
        "sweep -c nonsense --over latent_dim 1,2",
        "sweep -c quickstart --over latent_dim 1,2 --latent_dm 3",
        "evaluate {run} --suite nonsense",
        "evaluate nowhere",
        "evaluate {run} --data ./nowhere",
        "sample nowhere",
        "score {run} --data ./nowhere",
        "score {run} --data nowhere",
        "evaluate {run} --data no/where",
        "evaluate {run} --ood nowhere",
        "interpolate {run} --data nowhere",
        "reconstruct {run} --data embedded:nowhere",
        "diagnose {run} --data no.where",
        "cp quickstart own.yaml --for nowhere",
        "reconstruct {empty}",
        "interpolate nowhere a b",
        "traverse nowhere",
        "diagnose {run} --chains 2",
        "report nowhere",
        "fit -c quickstart --nonsense 3",
        "test nowhere",
        "validate-recipe quickstart --nonsense=3",
        "score {run} --dat x",
    ],
)
def test_refused_without_torch(words: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    chosen = [word.format(run=run, empty=tmp_path / "empty") for word in words.split()]
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(words=chosen)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.endswith("heavy [] status 2\n"), done.stdout + done.stderr


def test_the_light_names_are_those_of_the_suites() -> None:
    assert tuple(SUITES) == SUITE_NAMES


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["score", "run", "--data", "phtos"], "--data 'phtos': no such file or folder, and the Hugging Face"),
        (["score", "run", "--data", "phtos"], "did you mean 'photos'?"),
        (["evaluate", "run", "--ood", "photos/tset"], "--ood 'photos/tset': no such file"),
        (["evaluate", "run", "--ood", "photos/tset"], "did you mean 'photos/test'?"),
        (["cp", "quickstart", "x.yaml", "--for", "./phtos"], "--for './phtos': no such file or folder"),
        (["traverse", "run", "--data", "embedded:mnits"], "it has embedded:mnist, embedded:verses"),
    ],
)
def test_data_that_do_not_exist_are_named_by_their_flag(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    (tmp_path / "photos" / "test").mkdir(parents=True)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


def test_the_data_of_the_run_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {init_args: {path: gone/far}}")
    check_data("gone/far", run=tmp_path)
    with pytest.raises(UserError, match="gone/near"):
        check_data("gone/near", run=tmp_path)


def test_data_of_the_hub_that_were_read_before_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEBM_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="some/thing"):
        check_data("some/thing")
    (tmp_path / "images" / find_source("some/thing", tmp_path).key).mkdir(parents=True)
    check_data("some/thing")
