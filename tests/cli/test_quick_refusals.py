"""Words that can be checked are checked before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.config.request import check_data
from lebm.errors import UserError
from lebm.evaluation.run import SUITES
from lebm.evaluation.settings import SUITE_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
from lebm.__main__ import main
statuses = []
for words in json.loads(sys.argv[1]):
    status = main(words)
    statuses.append([sorted({"torch", "lightning", "numpy"} & set(sys.modules)), status])
print(json.dumps(statuses))
"""
REFUSED = [
    "sweep -c quickstart --over latent_dim 1,2 --suite nonsense",
    "sweep -c nonsense --over latent_dim 1,2",
    "sweep -c quickstart --over latent_dim 1,2 --latent_dm 3",
    "evaluate {run} --suite nonsense",
    "evaluate nowhere",
    "evaluate {run} --data ./nowhere",
    "sample nowhere",
    "score {run} --data ./nowhere",
    "evaluate {run} --data no/where/at/all",
    "evaluate {run} --ood ./nowhere",
    "interpolate {run} --data ~/nowhere",
    "reconstruct {run} --data embedded:nowhere",
    "diagnose {run} --data ../no.where",
    "cp quickstart own.yaml --for ./nowhere",
    "reconstruct {empty}",
    "interpolate nowhere a b",
    "traverse nowhere",
    "condition nowhere --data embedded:mnist",
    "restore {run} --data ./nowhere",
    "restore {run} --mask nowhere.png",
    "sample {run} --class 3 --start pool",
    "diagnose {run} --chains 2",
    "report nowhere",
    "fit -c quickstart --nonsense 3",
    "fit -c quickstart --data.init_args.path nowhere/at/all",
    "test {run} --data.path=./nowhere",
    "sweep -c quickstart --over seed 0,1 --data.init_args.path ./nowhere",
    "test nowhere",
    "validate-recipe quickstart --nonsense=3",
    "score {run} --dat x",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """The heavy modules after each command, and its status; one process runs all commands in turn."""
    folder = tmp_path_factory.mktemp("refused")
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folder / "empty").mkdir()
    chosen = [[word.format(run=run, empty=folder / "empty") for word in words.split()] for words in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(chosen)],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(REFUSED, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("words", REFUSED)
def test_refused_without_torch(words: str, refused: dict[str, list[object]]) -> None:
    assert refused[words] == [[], 2]


def test_the_light_names_are_those_of_the_suites() -> None:
    assert tuple(SUITES) == SUITE_NAMES


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["score", "run", "--data", "./phtos"], "--data './phtos': no such file or folder; did you mean"),
        (["evaluate", "run", "--ood", "./photos/tset"], "--ood './photos/tset': no such file"),
        (["evaluate", "run", "--ood", "./photos/tset"], "did you mean 'photos/test'?"),
        (["cp", "quickstart", "x.yaml", "--for", "./phtos"], "--for './phtos': no such file or folder"),
        (["fit", "-c", "quickstart", "--data.path", "../phtos"], "--data.path '../phtos': no such file or"),
        (["fit", "-c", "quickstart", "--data.init_args.path=./phtos"], "did you mean 'photos'?"),
        (["traverse", "run", "--data", "embedded:mnits"], "choose from embedded:mnist, embedded:verses"),
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
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    (tmp_path / "photos" / "test").mkdir(parents=True)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


def test_what_may_be_a_name_on_the_hub_is_tried() -> None:
    for name in ("mnist", "ylecun/mnist", "no.where"):
        check_data(name)
    for name in ("a/b/c", "../mnist", ".hidden", "two words"):
        with pytest.raises(UserError, match="no such file or folder"):
            check_data(name)
