"""Words that can be checked are checked before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        "reconstruct {empty}",
        "interpolate nowhere a b",
        "traverse nowhere",
        "diagnose {run} --chains 2",
        "report nowhere",
        "fit -c quickstart --nonsense 3",
        "test nowhere",
        "validate-recipe quickstart --nonsense=3",
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
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.endswith("heavy [] status 2\n"), done.stdout + done.stderr


def test_the_light_names_are_those_of_the_suites() -> None:
    assert tuple(SUITES) == SUITE_NAMES
