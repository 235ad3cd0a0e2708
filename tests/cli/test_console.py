"""What a training prints: two lines on the parameters, then one line of progress."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lebm.run import callbacks
from lebm.run.callbacks import PartSizes, Progress
from tests.callbacks.tiny import TinyData, latent_mle, trainer
from tests.cli.conftest import Run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _fit(folder: Path, progress: Progress, **options: object) -> Trainer:
    run = trainer(folder, [progress], enable_progress_bar=True, **options)
    run.fit(latent_mle(), datamodule=TinyData())
    return run


def test_a_log_file_gets_whole_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "PRINTED", 0.0)
    _fit(tmp_path, Progress())
    printed = capsys.readouterr().out
    assert not {"\x1b", "\r"} & set(printed)
    lines = printed.splitlines()
    assert all(len(line) < 80 and line.startswith("epoch ") for line in lines), printed
    assert re.fullmatch(r"epoch 2/2  step 8/8  loss \S+  \S+ steps/s  0:00:00 left(  .*)?", lines[-1])
    assert any(line.startswith("epoch 1/2  validation 3/3 batches  loss ") for line in lines)


def test_a_log_file_gets_a_line_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fit(tmp_path, Progress())
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_terminal_gets_one_line_that_is_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(callbacks, "REDRAWN", 0.0)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("rich._console", None)  # it asks once whether this is a terminal
    _fit(tmp_path, Progress())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    states = text.split("\r")
    assert len(states) > 8
    assert text.count("\n") == 1
    assert max(len(state.removesuffix("\n")) for state in states) < 80  # the end of the line is no column
    assert "epoch 2/2  step 8/8  loss" in states[-1] or "epoch 2/2  step 8/8  loss" in states[-2]


def test_a_long_line_loses_its_end_and_no_part_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress()
    run = _fit(tmp_path, progress)
    many = {f"metric_{number}": torch.tensor(1.5) for number in range(20)}
    monkeypatch.setattr(Trainer, "progress_bar_metrics", many)
    progress._loss = torch.tensor(0.125)
    line = progress.line(run, run.lightning_module, "validation 100000/200000 batches")
    assert len(line) < 80
    assert re.fullmatch(r"epoch 2/2  validation 100000/200000 batches  loss 0.125  \S+ steps/s", line)


def test_health_that_is_always_zero_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _fit(tmp_path, Progress())
    progress = Progress()
    names = {"mcmc/prior/displacement": "prior-move", "mcmc/posterior/gradient_norm": "posterior-grad"}
    for value, shown in ((0.0, False), (2.0, True), (0.0, True)):
        monkeypatch.setattr(Trainer, "callback_metrics", dict.fromkeys(names, torch.tensor(value)))
        metrics = progress.get_metrics(run, run.lightning_module)
        assert all((name in metrics) is shown for name in names.values()), value


def test_other_processes_print_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Second(Progress):
        def setup(self, trainer, pl_module, stage) -> None:  # type: ignore[no-untyped-def]
            super().setup(trainer, pl_module, stage)
            self.disable()  # as Lightning does where is_global_zero is false

    _fit(tmp_path, Second())
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_does_not_end_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    assert _fit(tmp_path, Progress()).global_step == 8


def test_fit_prints_sizes_of_the_parts_and_nothing_of_lightning(
    lebm: Run, tiny: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    flags = ["--trainer.enable_progress_bar=true", "--trainer.enable_model_summary=true"]
    assert lebm("fit", "-c", tiny, *flags) == 0
    printed, errors = capfd.readouterr()
    begun, *lines, last = printed.splitlines()
    assert (begun[:13], last[:16]) == ("lebm: fit in ", "lebm: finished, ")
    parts, total, progress = [line for line in lines if not line.startswith("lebm: held out")]
    assert re.fullmatch(r"lebm: parameters per part: likelihood \S+( K)?, .*", parts)
    assert re.fullmatch(r"lebm: parameters in all: [\d,]+", total)
    assert progress.startswith("epoch ")
    assert errors == ""


def test_sizes_name_what_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    data = [(" ", ["0", "1"]), ("Name", ["prior", "sampler"]), ("Params", ["1.2 K", "0"])]
    PartSizes.summarize(data, 1234, 1200, 0.1, {}, 0)
    assert capsys.readouterr().out == (
        "lebm: parameters per part: prior 1.2 K\nlebm: parameters in all: 1,234, 34 not trained\n"
    )
