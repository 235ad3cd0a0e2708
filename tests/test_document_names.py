"""Names in the documentation exist: classes, functions, arguments, flags and recipes in code spans.

``tests/test_documents.py`` resolves dotted names of lebm and paths of the repository.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, callbacks, strategies

from scripts.notebooks import text

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb")])
    if page.stem != "CHANGELOG"
]
RECIPES = {
    file.relative_to(ROOT / "recipes").with_suffix("").as_posix() for file in ROOT.glob("recipes/**/*.yaml")
}
FOLDERS = {name.split("/")[0] for name in RECIPES}
OF_OTHERS = {
    *("exp", "log", "sqrt", "tanh", "min", "softplus", "super"),  # mathematics and Python
    *(
        "LightningModule",
        "ModelCheckpoint",
        "save_on_exception",
        "find_unused_parameters",
    ),  # Lightning and torch
    *("OMP_NUM_THREADS", "HF_ENDPOINT", "WANDB_BASE_URL", "RANK_OF_MACHINE"),  # the environment
    *("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"),  # of glibc
    *("init_args", "safetensors"),  # keys and suffixes after a dot
    "save_pretrained",  # diffusers
}
PUT_TOGETHER = {
    *("train_label", "validation_label", "test_label"),
    *("perplexity_low", "perplexity_high", "reconstruction_mse_above_k"),
    *("real_distinct_1", "real_distinct_2", "real_self_bleu"),
    *("short_run_mala", "taught_mala"),  # rows of a table of results
    *("train_name", "validation_name", "test_name"),
}
"""Names that the source makes from parts."""


@functools.cache
def source() -> tuple[set[str], set[str]]:
    """Names that the package defines (classes, functions, attributes), and all words that it uses."""
    defined, used = set(), set(inspect.signature(Trainer).parameters) | FOLDERS
    used |= {*dir(callbacks), *dir(strategies), *(name.rpartition("/")[2] for name in RECIPES)}
    for file in ROOT.glob("lebm/**/*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id.isupper():
                used.add(node.id)
            elif isinstance(node, ast.arg):
                used.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
                used |= set(re.findall(r"\w+", node.value))
        used |= {flag.replace("-", "_") for flag in re.findall(r"--([\w-]+)", text)}
    for study in ROOT.glob("studies/*.yaml"):
        used |= set(re.findall(r"\w+", study.read_text(encoding="utf-8")))
    return defined, used | defined


def unknown(content: str) -> list[str]:
    """Names in the code spans and commands of a page that the page, lebm and Lightning do not have."""
    fence = re.compile(r"^```.*?^```", re.S | re.M)
    code = "\n".join(fence.findall(content))
    spans = re.findall(r"`([^`\n]+)`", fence.sub("", content))
    own = set(re.findall(r"\w+", code))
    defined, used = (names | own | OF_OTHERS | PUT_TOGETHER for names in source())
    found = []
    for span in spans:
        calls = re.findall(r"(?<!\w)(?!\w_)([A-Za-z]\w{2,})\(", span)
        calls += re.findall(r"(?<![\w.-])(?:self|model|prior|likelihood)\.([a-z]\w*)", span)
        found += [name for name in calls if name not in defined]
        words = re.findall(r"(?<![\w./-])[A-Za-z]\w{2,}(?:_\w+|[a-z][A-Z]\w*)(?![\w.]*/)", span)
        found += [word for word in words if word not in used]
    commands = [span for span in spans if span.startswith(("--", "lebm "))]
    commands += re.findall(r"^lebm .*(?:\\\n.*)*", code, re.M)
    for flag in re.findall(r"(?<!\S)--([A-Za-z][\w.-]*)", "\n".join(commands)):
        found += [f"--{flag}" for word in flag.replace("-", "_").split(".") if word not in used]
    named = re.findall(rf"(?<![\w/.:-])((?:{'|'.join(FOLDERS)})/\w+)(?![\w/.*-])", "\n".join([*spans, code]))
    return found + [name for name in named if name not in RECIPES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_of_a_page_exists(page: Path) -> None:
    assert unknown(text(page)) == []


def test_names_that_do_not_exist_are_found() -> None:
    for span in (
        "LatentNothing",
        "positives(x)",
        "no_such_argument",
        "--trainer.no_flag 1",
        "latent_mle/none",
    ):
        assert unknown(f"`{span}`") == [re.split(r"[ (]", span)[0]]
    assert unknown("`LatentMLE(likelihood)` `--latent_dim 8` `prior/mixture` `model.decode(z)`") == []
