"""The documentation site, without its tools: what it lists exists, and what exists is listed."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

import lebm
from scripts import notebooks, site_pages

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


@pytest.mark.parametrize("package", packages_with_public_names())
def test_every_public_name_has_an_entry_in_the_reference(package):
    page = site_pages.api_pages()[f"api/{package.rpartition('.')[2]}.md"]
    entries = re.findall(r"^::: (\S+)$", page, re.M)
    public = [
        f"{package}.{name}" for name in importlib.import_module(package).__all__ if not name.startswith("__")
    ]
    assert set(public) <= set(entries)
    assert len(entries) == len(set(entries)), "an entry is on the page twice"


def test_the_reference_has_the_documented_modules_and_nothing_that_does_not_exist():
    entries = set(site_pages.public_names().values())
    for name in entries:
        assert pkgutil.resolve_name(name) is not None, name
    assert {"lebm.load", "lebm.errors.UserError", "lebm.estimators.latent_model.Revises"} <= entries
    assert {"lebm.evaluation.run.run_suites", "lebm.metrics.text_likelihood.self_bleu"} <= entries


def test_a_name_leads_to_its_entry_only_if_it_has_one_meaning():
    names = site_pages.public_names()
    meant = {
        "~lebm.samplers.langevin.Langevin": "lebm.samplers.Langevin",
        "Prior.energy": "lebm.models.Prior.energy",
        "EnergyPrior": "lebm.models.EnergyPrior",
        "FrechetDistance": None,  # a callback and a metric
        "load": None,  # too common a word
        "torch.Tensor": None,
    }
    assert {name: site_pages.resolve(name, names) for name in meant} == meant


def test_the_navigation_names_every_page_once():
    pages = [page for page in navigation() if not page.startswith("api/")]
    written = {file.relative_to(DOCS).with_suffix(".md").as_posix() for file in PAGES} - {"README.md"}
    assert len(pages) == len(set(pages))
    assert set(pages) == written | set(site_pages.OUTSIDE.values())
    for page in site_pages.OUTSIDE:
        assert (ROOT / page).exists()


@pytest.mark.parametrize(
    "path", [*site_pages.OUTSIDE, *(f"docs/{file.relative_to(DOCS).as_posix()}" for file in PAGES)]
)
def test_every_link_of_a_page_leads_to_a_page_of_the_site(path):
    text = site_pages.relinked(notebooks.text(ROOT / path), path)
    pages = {*site_pages.api_pages(), *site_pages.source_pages(), *site_pages.OUTSIDE.values()}
    pages |= {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.*")} - {"README.md"}
    pages |= {file.relative_to(DOCS).with_suffix(".md").as_posix() for file in DOCS.rglob("*.ipynb")}
    folder = Path(site_pages.site_path(path)).parent
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            assert site_pages.normpath((folder / target).as_posix()) in pages, target


def test_a_link_out_of_the_site_is_refused():
    assert site_pages.relinked("[a](docs/data.md#x) `[b](c)`", "README.md") == "[a](data.md#x) `[b](c)`"
    assert site_pages.relinked("[a](../README.md)", "docs/data.md") == "[a](index.md)"
    with pytest.raises(ValueError, match=r"README.md links to setup.cfg"):
        site_pages.relinked("[a](setup.cfg)", "README.md")


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
def test_recipes_and_methods_lead_to_each_other(name):
    assert f"](gallery.md#{site_pages.anchor(lebm_class(name))})" in (DOCS / f"{name}.md").read_text()
    pages = site_pages.source_pages()
    section = site_pages.api_pages()["api/estimators.md"].split(f"## {name}\n")[1].split("\n## ")[0]
    assert f"](../{name}.md)" in section
    recipes = [path for path in pages if path.startswith(f"recipes/{name}/")]
    assert recipes
    for path in recipes:
        assert f"](../../{name}.md)" in pages[path]
        assert "](../../gallery.md" in pages[path]


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
