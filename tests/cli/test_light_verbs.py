"""The verbs that answer without torch."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lebm import __version__
from lebm.__main__ import main
from lebm.config import recipes

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe folder of two recipes."""
    root = tmp_path / "library"
    (root / "latent_mle").mkdir(parents=True)
    (root / "quickstart.yaml").write_text(
        "# Digits in a minute.\n# Status   not yet run at full length.\nlatent_dim: 8\n"
    )
    (root / "latent_mle" / "mnist.yaml").write_text(
        "\n# MNIST, table 1.\n# more\n#\n# Status   run at full length: 3 s.\nlatent_dim: 16\n"
    )
    monkeypatch.setattr(recipes, "folder", lambda: root)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize(
    "words",
    [["ls"], ["--help"], ["--version"], ["fit", "--help"], ["cat", "{recipe}"], ["cp", "{recipe}", "{copy}"]],
)
def test_answers_in_under_a_second_without_torch(words: list[str], tmp_path: Path) -> None:
    recipe = REPOSITORY / "tests" / "cli" / "tiny.yaml"
    words = [word.format(recipe=recipe, copy=tmp_path / "copy.yaml") for word in words]
    code = (
        "import sys, time; t = time.perf_counter()\nfrom lebm.__main__ import main\nstatus ="
        f" main({words!r})\nprint('heavy', sorted({{'torch', 'lightning', 'jsonargparse', 'numpy', 'wandb'}}"
        " & set(sys.modules)), file=sys.stderr)\nprint('seconds', time.perf_counter() - t, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert "heavy []" in done.stderr, done.stderr
    assert float(done.stderr.split("seconds")[1]) < 1


def test_module_and_command_are_the_same() -> None:
    started = time.perf_counter()
    module = subprocess.run(
        [sys.executable, "-m", "lebm", "sample", "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    code = "import sys; from lebm.__main__ import main; sys.argv[0] = 'whatever'; sys.exit(main())"
    command = subprocess.run(
        [sys.executable, "-c", code, "sample", "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert module.stdout == command.stdout
    assert module.stdout.startswith("usage: lebm sample")
    assert time.perf_counter() - started < 5


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    from lebm.cli.dispatch import VERBS, _verb

    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)
    for verb in VERBS:
        assert callable(_verb(verb))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lebm {__version__}\n"


def test_ls_prints_names_and_titles(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    lines = ["quickstart         Digits in a minute.", "latent_mle/mnist * MNIST, table 1.", ""]
    assert capsys.readouterr().out.splitlines() == [
        *lines,
        "* run at full length, with the result in its header: lebm cat RECIPE",
    ]


def test_cat_prints_the_file(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cat", "latent_mle/mnist"]) == 0
    assert capsys.readouterr().out == (library / "latent_mle" / "mnist.yaml").read_text()


def test_cp_copies_and_never_overwrites(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "quickstart", "mine.yaml"]) == 0
    Path("mine.yaml").write_text("my own\n")
    assert main(["cp", "quickstart", "mine.yaml"]) == 2
    assert "mine.yaml exists" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "my own\n"
    assert main(["cp", "quickstart", "mine.yaml", "--force"]) == 0
    assert Path("mine.yaml").read_text() == (library / "quickstart.yaml").read_text()
    assert main(["cp", "quickstart", "nowhere/mine.yaml"]) == 2
    assert main(["cp", "latent_mle/mnist", "."]) == 0
    assert Path("mnist.yaml").is_file()


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("latent_mle/mnist", "latent_mle-mnist"),
        ("quickstart", "quickstart"),
        ("library/latent_mle/mnist.yaml", "latent_mle-mnist"),
        ("own.yaml", "own"),
        ("mine/own.yaml", "mine-own"),
    ],
)
def test_run_names(library: Path, recipe: str, name: str) -> None:
    Path("mine").mkdir()
    for path in ("own.yaml", "mine/own.yaml"):
        Path(path).write_text("latent_dim: 1\n")
    assert recipes.run_name(recipe) == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fti"], "did you mean 'fit'?"),
        (["cat", "latent_mle/mnits"], "did you mean 'latent_mle/mnist'?"),
        (["cat", "mnist"], "did you mean 'latent_mle/mnist'?"),
        (["cat", "zzz"], "lebm ls lists the recipes"),
        (["-c", "quickstart"], "the verb comes first"),
        (["fit"], "name a recipe"),
        (["fit", "-c"], "-c needs a value"),
        (["fit", "quickstart"], "use -c quickstart for a recipe"),
        (["fit", "-c", "quikstart"], "did you mean 'quickstart'?"),
        (["fit", "--resume", "runs/none"], "no such run folder"),
        (["sample", "runs/none"], "no such run folder or checkpoint"),
        (["fit", "-c", "quickstart", "--trust", "a b"], "--trust a b"),
        (["sample", "runs/none", "--sede", "3"], "unknown argument --sede; did you mean '--seed'?"),
        (["score", "runs/none", "--dta=x"], "unknown argument --dta; did you mean '--data'?"),
        (["report", "runs/none", "--nonsense"], "lebm report --help lists the arguments"),
        (["export", "a", "b", "--frce"], "did you mean '--force'?"),
        (["push", "a", "b", "--privat_"], "did you mean '--private'?"),
        (["ls", "-x"], "unknown argument -x"),
        (["cp", "quickstart", "x.yaml", "--frce"], "did you mean '--force'?"),
        (["sample", "a", "-n", "few"], "lebm sample: argument -n: expected a whole number"),
        (["sample"], "required: run"),
    ],
)
def test_one_line_and_status_two(
    library: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("lebm: error: ")
    assert error.count("\n") == 1
    assert expected in error


def test_a_run_folder_in_the_place_of_a_recipe(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    Path("here/config.yaml").write_text("latent_dim: 1\n")
    assert main(["fit", "here"]) == 2
    assert "or --resume here for a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "expected", "absent"),
    [
        (
            "fit",
            (
                "usage: lebm fit -c RECIPE",
                "lebm fit --resume RUN",
                "\n  --resume [RUN] ",
                "\n  --trust PACKAGE ",
            ),
            "lebm fit RUN",
        ),
        ("test", ("usage: lebm test RUN", "\n  --trust PACKAGE "), "--resume ["),
        ("validate", ("usage: lebm validate RUN",), "--resume ["),
        ("validate-recipe", ("usage: lebm validate-recipe RECIPE",), "--resume ["),
    ],
)
def test_help_shows_what_comes_first(
    capsys: pytest.CaptureFixture[str], verb: str, expected: tuple[str, ...], absent: str
) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in expected)
    assert absent not in shown


@pytest.mark.parametrize("verb", ["fit", "test", "validate", "validate-recipe"])
def test_help_is_one_screen_and_names_flags_that_exist(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main([verb, "--help"]) == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= 40
    assert max(map(len, short.splitlines())) <= 110
    assert main([verb, "--help", "all"]) == 0
    every = capsys.readouterr().out
    assert len(every.splitlines()) > 300
    flags = set(re.findall(r"(?<=  )--[\w.]+", short)) - {"--data.path"}  # that of the chosen data module
    assert "--trainer.max_epochs" in flags
    assert [flag for flag in flags if f"\n  {flag} " not in every and f"\n  {flag}\n" not in every] == []


def test_help_tells_the_verbs_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--help"]) == 0
    assert "steps per chain (default: 500)" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", "--help"]) == 0
    assert "number of rows per batch, which does not change the result (default: 250)" in " ".join(
        capsys.readouterr().out.split()
    )
