"""The completion script, asked as bash asks it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lebm.__main__ import main

BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lebm", "sam"], {"sample"}),
        (
            ["lebm", "fit", "-c", "latent_mle/mnist_a"],
            {
                "latent_mle/mnist_anomaly",
                "latent_mle/mnist_anomaly_conv",
                "latent_mle/mnist_anomaly_published",
            },
        ),
        (["lebm", "fit", "-c", "inference/t"], {"inference/taught"}),
        (["lebm", "cat", "quick"], {"quickstart"}),
        (["lebm", "fit", "-c", "mi"], {"mine.yaml"}),
        (["lebm", "sample", "mi"], {"mine.yaml", "mine.txt"}),
        (["lebm", "sample", "quick"], set()),
    ],
)
def test_completions(
    words: list[str], expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--print-completion"]) == 0
    for name in ("mine.yaml", "mine.txt"):
        (tmp_path / name).touch()
    asked = " ".join(f"'{word}'" for word in words)
    code = f"{capsys.readouterr().out}\nCOMP_WORDS=({asked}) COMP_CWORD={len(words) - 1}\n_lebm\n"
    code += "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    done = subprocess.run([str(BASH), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected
    assert done.stderr == ""
