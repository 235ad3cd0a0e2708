"""What the documents show must run, and what they link to must exist."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import lebm
from lebm import data
from lebm.__main__ import main
from lebm.samplers import Noise
from scripts.notebooks import text as text_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.S | re.M)


@pytest.fixture(scope="module")
def fresh():
    """A process that imports lebm and then runs the example of the readme, with checks of what is loaded."""
    code = (
        "import sys, lebm\nassert 'torch' not in sys.modules\nlebm.load\n"
        "assert 'lightning' not in sys.modules\ntry:\n    lebm.nothing\n"
        "except AttributeError as error:\n    print(f'AttributeError: {error}', file=sys.stderr)\n"
    )
    check = (
        "\nassert not any(name.startswith('lightning') for name in sys.modules), 'Lightning was imported'\n"
    )
    code += blocks(ROOT / "README.md", "python")[0] + check
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_example_of_the_readme_runs_without_lightning(fresh):
    assert fresh.returncode == 0, fresh.stderr
    assert "torch.Size([1000, 8])" in fresh.stdout
    assert "'nonfinite': 0.0" in fresh.stdout
    assert (
        0.5 < float(re.search(r"tensor\((.*?)\)", fresh.stdout).group(1)) < 1.2
    )  # the added term pulls the first coordinate to 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "README.md" and page.suffix == ".md" and blocks(page, "python")],
    ids=lambda page: page.name,
)
def test_every_example_of_a_page_runs_alone(page, tmp_path, monkeypatch):
    """In names of its own, though the files that those before it have written are there."""
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name}, example {number}", "exec"), {"__name__": "example"})


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """The folder of somebody who has written down what docs/extending.md shows."""
    monkeypatch.chdir(tmp_path)
    for name in ("LEBM_DEBUG", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    Path("mine.py").write_text("\n\n".join(blocks(DOCS / "extending.md", "python")))
    Path("mine.yaml").write_text(blocks(DOCS / "extending.md", "yaml")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mine", None)


FAST = [
    "--trust",
    "mine",
    "--trainer.max_steps",
    "2",
    "--trainer.log_every_n_steps",
    "1",
    "--trainer.limit_val_batches",
    "0",
]
FAST += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.mark.filterwarnings("ignore")
def test_energy_sampler_and_generator_of_your_own_train_and_draw(own_parts, capsys):
    assert main(["fit", "-c", "quickstart", "-c", "mine.yaml", "--run_dir", "runs/mine", *FAST]) == 0
    config = yaml.safe_load(Path("runs/mine/config.yaml").read_text())["model"]["init_args"]
    assert config["prior_sampler"] == {
        "class_path": "mine.LazyLangevin",
        "init_args": {"steps": 60, "step_size": 0.4, "rest": 0.1},
    }
    assert main(["sample", "runs/mine", "-n", "2", "--steps", "3", "--trust", "mine", "--out", "x.npy"]) == 0
    assert main(["sample", "runs/mine", "-n", "2"]) == 2
    assert "add --trust mine" in capsys.readouterr().err
    model = lebm.load("runs/mine", trust=["mine"])
    assert type(model.prior.tilt).__name__ == "QuadraticEnergy"
    drawn = model.sample_latent(6, steps=2, generator=Noise.shards("test", shards=2))
    parts = [
        model.sample_latent(3, steps=2, generator=Noise.shards("test", shards=2, rank=rank, world_size=2))
        for rank in (0, 1)
    ]
    torch.testing.assert_close(drawn, torch.cat(parts))  # as the page says of processes
    words = ["evaluate", "runs/mine", "--suite", "mine.roughness", "--n-samples", "200", "--limit", "200"]
    assert main(words) == 2
    assert "add --trust mine" in capsys.readouterr().err
    assert main([*words, "--trust", "mine"]) == 0
    suite = json.loads(Path("runs/mine/evaluation.json").read_text())["suites"]["mine.roughness"]
    assert [(figure["name"], figure["n"]) for figure in suite["figures"]] == [
        ("roughness/samples", 200),
        ("roughness/test", 200),
    ]
    assert all(figure["low"] < figure["value"] < figure["high"] for figure in suite["figures"])
    assert main(["report", "runs/mine", "--out", "page.html"]) == 0
    assert re.search(r"roughness/test.*lower", Path("page.html").read_text())
    assert main(["evaluate", "runs/mine", "--suite", "roughness"]) == 2
    assert "a suite of your own is named MODULE.FUNCTION" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_base_of_your_own_is_fitted_and_drawn(own_parts):
    Path("flow.yaml").write_text(blocks(DOCS / "extending.md", "yaml")[1])
    words = ["-c", "quickstart", "-c", "flow.yaml", "--run_dir", "runs/flow", *FAST]
    assert main(["fit", *words, "--model.init_args.fit_base.at", "1"]) == 0
    model = lebm.load("runs/flow", trust=["mine"])
    flow = model.prior.base
    assert type(flow).__name__ == "CouplingFlow"
    assert not model.fit_base.pending
    fresh = type(flow)(flow.latent_dim)
    z = model.encode(torch.zeros(50, 1, 28, 28), steps=0, generator=Noise([(0,)])).detach()
    with torch.no_grad():
        assert not torch.equal(flow.log_density(z), fresh.log_density(z))
        plane = type(flow)(2)
        torch.nn.init.normal_(plane.nets[0][2].weight, std=0.3)
        axis = torch.linspace(-12, 12, 481)
        chance = plane.log_density(grid := torch.cartesian_prod(axis, axis)).exp() * 0.05**2
        assert float(chance.sum()) == pytest.approx(1, abs=1e-3)
        drawn = plane.reference(20_000, torch.Generator().manual_seed(0))
    error = 4 * drawn.std(dim=0) / 20_000**0.5
    assert ((drawn.mean(dim=0) - chance @ grid).abs() < error).all()
    assert (
        (drawn.square().mean(dim=0) - chance @ grid.square()).abs() < 6 * error * drawn.abs().mean()
    ).all()
    assert main(["sample", "runs/flow", "-n", "2", "--trust", "mine", "--out", "x.npy"]) == 0


@pytest.mark.filterwarnings("ignore")
def test_callback_of_your_own_logs_and_tells_how(own_parts):
    """Beside those of the page of callbacks, which has the overlay."""
    Path("pictures.yaml").write_text(blocks(DOCS / "callbacks.md", "yaml")[0])
    words = ["-c", "quickstart", "-c", "pictures.yaml", "--run_dir", "runs/labels", *FAST]
    words += ["--trainer.limit_val_batches", "2", "--data.init_args.eval_batch_size", "100"]
    words += ["--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "2"]
    words += ["--trainer.callbacks+=mine.LabelError"]
    assert main(["fit", *words]) == 0
    summary = json.loads(Path("runs/labels/summary.json").read_text())
    errors = {
        name: value for name, value in summary["metrics"].items() if name.startswith("val/label_error/")
    }
    assert set(errors) == {
        f"val/label_error/{label}" for label in range(10) if label != 4
    }  # the quickstart holds 4 out
    assert all(0 < value < 4 for value in errors.values())
    assert summary["protocols"]["LabelError"]["range"] == [-1, 1]
    assert {"samples", "latents"} <= {folder.name for folder in Path("runs/labels/images").iterdir()}


@pytest.mark.filterwarnings("ignore")
def test_data_and_method_of_your_own_train(own_parts, capsys):
    assert main(["cp", "quickstart", "penalised.yaml"]) == 0
    recipe = Path("penalised.yaml")
    named = r"class_path: (lebm\.estimators\.)?LatentMLE\b"
    recipe.write_text(re.sub(named, "class_path: mine.PenalisedMLE", recipe.read_text()))
    assert (
        main(
            [
                "fit",
                "-c",
                "penalised.yaml",
                "--data",
                "mine.WaveData",
                "--data.init_args.batch_size",
                "10",
                *FAST,
            ]
        )
        == 0
    )
    assert "train/penalty" in Path("runs/penalised/metrics.csv").read_text().splitlines()[0]
    assert (
        yaml.safe_load(Path("runs/penalised/config.yaml").read_text())["data"]["class_path"]
        == "mine.WaveData"
    )


def test_the_options_of_the_data_page_are_those_of_the_code():
    page = (DOCS / "data.md").read_text()
    shared = {"path", "batch_size", "eval_batch_size", "seed"}
    for name in ("ImageData", "ArrayData", "PlaneData", "TextData"):
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        told = {}
        for options, default in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|([^|]*)\|", section, re.M):
            told |= (
                {}
                if options == "`path`"
                else {option.strip("`"): default.strip().strip("`") for option in options.split(", ")}
            )
        defaults = {
            key: value.default
            for key, value in inspect.signature(getattr(data, name)).parameters.items()
            if key not in shared
        }
        assert told.keys() == defaults.keys(), name
        written = {
            option: json.dumps(value).strip('"') for option, value in defaults.items()
        }  # null, true, false as in a recipe
        assert {option: default for option, default in told.items() if default} == {
            option: written[option] for option, default in told.items() if default
        }


def test_importing_the_package_is_cheap(fresh):
    """``lebm`` alone loads no torch, and ``lebm.load`` no Lightning."""
    assert fresh.returncode == 0, fresh.stderr
    assert "AttributeError: module 'lebm' has no attribute 'nothing'" in fresh.stderr.splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_the_documents_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", text_of(page)):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page as a browser of the repository makes them."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_meet_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text_of(page)):
        assert anchor in anchors(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda p: p.name
)
def test_names_and_files_in_the_documents_exist(page):
    """Dotted names of lebm, and paths of the repository; `NAME` and `<method>` stand for any."""
    text = text_of(page)
    for name in set(re.findall(r"\blebm(?:\.[a-zA-Z_]\w*)+", text)):
        if name.endswith((".NAME", ".git")):
            continue
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            raise AssertionError(f"{page.name} names {name}") from error
    for path in re.findall(r"`((?:lebm|tests|scripts|benchmarks|recipes|docs|results)/[\w/.]+\w)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_lines_of_the_documents_are_short():
    """Of prose: tables, code, links, and what a script writes may be longer, and a code span is not cut."""
    skipped = r"^```.*?^```|^<!-- (?!end|run).*?^<!-- end -->"
    for page in PAGES:
        text = re.sub(skipped, "", text_of(page), flags=re.S | re.M)
        text = re.sub(r"`[^`\n]*`", lambda span: span[0].replace(" ", "_"), text)
        prose = [line for line in text.splitlines() if not re.match(r"[|#]|!\[|    ", line)]
        assert not [line for line in prose if len(line) > 110 and " " in line[:110].strip()], page.name


def test_the_index_lists_every_page():
    listed = re.findall(r"^\| \[[\w./-]+\]\(([\w./-]+)\)", (DOCS / "README.md").read_text(), re.M)
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES if page.parent not in (ROOT, DOCS / "api")]
    missing = ({*pages} - {"README.md"}) ^ {*listed}
    assert sorted(listed) == sorted(page for page in pages if page != "README.md"), (
        f"rows of docs/README.md: {missing}"
    )


def test_documented_benchmarks_are_modules_that_exist():
    """They import each other, so they start with ``python -m`` only; a path would not find the package."""
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*.py"),
        *ROOT.glob("scripts/*.py"),
    ]
    text = "\n".join(file.read_text() for file in files)
    assert not re.findall(r"python benchmarks/\w+", text)
    named = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert named >= {"bench", "gpu", "density_ratio"}
    for name in named:
        assert "__main__" in (ROOT / "benchmarks" / f"{name}.py").read_text(), name
