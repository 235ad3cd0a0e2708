"""The documentation site, without its tools: what it lists exists, and what exists is listed."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

import lebm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")])


def navigation() -> list[str]:
    """The pages that mkdocs.yml names."""
    loaded = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    found: list[str] = []

    def walk(item):
        if isinstance(item, str):
            found.append(item)
        for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            walk(part)

    walk(loaded)
    return found


def packages_with_public_names() -> list[str]:
    packages = [
        "lebm",
        *(f"lebm.{module.name}" for module in pkgutil.iter_modules(lebm.__path__) if module.ispkg),
    ]
    return [name for name in packages if getattr(importlib.import_module(name), "__all__", ())]


def entries() -> list[str]:
    """The modules of the reference."""
    pages = (DOCS / "api").glob("*.md")
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]


def test_every_package_with_public_names_has_an_entry_in_the_reference():
    names = entries()
    assert set(packages_with_public_names()) <= set(names)
    assert {"lebm.errors", "lebm.evaluation", "lebm.metrics.text_likelihood"} <= set(names)
    assert len(names) == len(set(names)), "an entry is on the pages twice"
    for name in names:
        assert pkgutil.resolve_name(name) is not None, name


def test_the_navigation_names_every_page_once():
    pages = navigation()
    written = {file.relative_to(ROOT).as_posix() for file in (*PAGES, *ROOT.glob("*.md"))}
    assert len(pages) == len(set(pages))
    assert set(pages) == written


def test_the_gallery_has_every_recipe():
    """That it is up to date is one of the tests of results."""
    page = (DOCS / "gallery.md").read_text()
    cards = re.findall(r"^-   ### (\S+)$|^\| \[`([^`]+)`\]", page, re.M)
    recipes = {
        file.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        for file in ROOT.glob("recipes/**/*.yaml")
    }
    parts = ("data", "loggers", "inference", "prior")  # blocks and overlays train nothing by themselves
    assert sorted(map("".join, cards)) == sorted(name for name in recipes if name.split("/")[0] not in parts)
    text = page.split("### latent_mle/mnist_published\n")[1].split("### ")[0]
    assert "test MSE 0.087, 24 CPU minutes" in text


@pytest.mark.parametrize("name", ["latent_mle", "multistage_nce", "joint_hierarchical", "dual_mcmc"])
def test_methods_lead_to_their_recipes(name):
    assert f"](gallery.md#{lebm_class(name).lower()})" in (DOCS / f"{name}.md").read_text()


def lebm_class(page: str) -> str:
    """The class that the page of a method describes."""
    return re.search(r"`lebm\.estimators\.(\w+)`", (DOCS / f"{page}.md").read_text())[1]


NUMBER = re.compile(r"(?<![\w.])(?:\d[\d,]*)?\.?\d+(?!\w)")


def test_the_page_of_when_has_only_numbers_of_the_results():
    """As they are there, or rounded."""
    pages = "".join(page.read_text() for page in (DOCS / "results").glob("*.md"))
    known = [float(number.replace(",", "")) for number in NUMBER.findall(pages)]
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", (DOCS / "when.md").read_text())
    numbers = NUMBER.findall(text)
    assert len(numbers) > 30
    for number in numbers:
        half = 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9
        assert any(abs(float(number) - other) <= half for other in known), number


def test_the_citation_names_this_version_and_the_papers_of_the_methods():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lebm.__version__
    assert citation["type"] == "software"
    pages = re.sub(r"\s+", " ", "".join(page.read_text() for page in DOCS.glob("*.md")))
    for paper in citation["references"]:
        venue = re.search(r"\((\w+)\)", paper["collection-title"])[1]
        assert f"*{paper['title']}*, {venue} {paper['year']}" in pages
