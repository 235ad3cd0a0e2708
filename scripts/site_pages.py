"""Pages of the site outside docs/: the API reference, the recipes, the examples.

The names come from static analysis, so nothing is imported. The tests use this module too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

ROOT = Path(__file__).resolve().parents[1]

EXTRA = {
    "lebm": ("lebm.errors", "lebm.component"),
    "lebm.estimators": ("lebm.estimators.latent_model",),
    "lebm.metrics": ("lebm.metrics.text_likelihood",),
}
"""Modules whose public names their package does not export; their names are on its page."""

WHOLE = ("lebm.evaluation",)
"""Packages without public names; the names of their modules are on the page."""

OUTSIDE = {
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository that are pages of the site under another path."""


@dataclass
class Entries:
    """The public names of one module that a page lists together, each with the path that users import."""

    module: str
    paths: list[str] = field(default_factory=list)


def source(module: str) -> Path:
    """Return the file of a module or package."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def exported(module: str) -> list[str]:
    """Return the names in ``__all__``; empty without one."""
    for node in ast.parse(source(module).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def origins(module: str) -> dict[str, str]:
    """Return the module from which a package imports each name."""
    tree = ast.parse(source(module).read_text())
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    return found


def summary(module: str) -> str:
    """Return the first paragraph of a module's docstring, without the roles of Sphinx."""
    text = ast.get_docstring(ast.parse(source(module).read_text())) or ""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.split("\n\n")[0]).replace("\n", " ")


def submodules(package: str) -> list[str]:
    files = sorted(source(package).parent.glob("*.py"))
    return [f"{package}.{file.stem}" for file in files if file.stem != "__init__"]


@cache
def rooms() -> dict[str, list[Entries]]:
    """Return the public names of every package of lebm, module by module."""
    packages = ["lebm", *sorted(f"lebm.{file.parent.name}" for file in (ROOT / "lebm").glob("*/__init__.py"))]
    found = {package: list(_entries(package)) for package in packages}
    return {package: entries for package, entries in found.items() if entries}


def _entries(package: str) -> Iterator[Entries]:
    origin, modules = origins(package), {}
    for name in exported(package):
        if not name.startswith("__"):
            module = origin.get(name, package)
            modules.setdefault(module, Entries(module)).paths.append(f"{package}.{name}")
    yield from modules.values()
    whole = [module for module in submodules(package) if exported(module)] if package in WHOLE else []
    for module in (*EXTRA.get(package, ()), *whole):
        yield Entries(module, [f"{module}.{name}" for name in exported(module)])


@cache
def public_names() -> dict[str, str]:
    """Return the entry of every documented path, as users and as modules write it."""
    found = {}
    for entries in (entry for room in rooms().values() for entry in room):
        for path in entries.paths:
            found[path] = found[f"{entries.module}.{path.rpartition('.')[2]}"] = path
    return found


def resolve(target: str, names: dict[str, str]) -> str | None:
    """Return the entry of ``~lebm.models.Prior``, ``Prior`` or ``Prior.energy``; ``None`` without one."""
    target = target.lstrip("~.")
    for path in (target, target.rpartition(".")[0]):
        if path in names:
            return names[path] + target[len(path) :]
        last = path.split(".")[0]
        means = {entry for entry in names.values() if entry.rpartition(".")[2] == last}
        if last[:1].isupper() and len(means) == 1 and "." not in path:
            return means.pop() + target[len(path) :]
    return None


def guide(module: str) -> list[str]:
    """Return a link to the page of docs/ about a package or module, if any."""
    name = module.rpartition(".")[2]
    return ["", f"[The page about it](../{name}.md)"] if (ROOT / "docs" / f"{name}.md").exists() else []


def api_page(package: str, entries: list[Entries]) -> str:
    """Return the Markdown of one page of the reference."""
    lines = [f"# {package}", "", summary(package), *guide(package), ""]
    for entry in entries:
        if entry.module != package:
            name = entry.module.rpartition(".")[2]
            lines += [f"## {name}", "", summary(entry.module), *guide(entry.module), ""]
        for path in entry.paths:
            lines += [f"::: {path}", ""]
    return "\n".join(lines)


@cache
def api_pages() -> dict[str, str]:
    """Return the Markdown of the whole reference and its index, by path on the site."""
    pages, index = {}, ["# API reference", "", "One page per package, from the docstrings.", ""]
    index += ["| package | |", "|---|---|"]
    for package, entries in rooms().items():
        path = f"api/{package.rpartition('.')[2]}.md"
        pages[path] = api_page(package, entries)
        index.append(f"| [`{package}`]({path.removeprefix('api/')}) | {summary(package)} |")
    return {"api/index.md": "\n".join(index) + "\n", **pages}


@cache
def source_pages() -> dict[str, str]:
    """Return the Markdown of every recipe and example, highlighted, by path on the site."""
    pages = {}
    for file in sorted((ROOT / "recipes").rglob("*.yaml")):
        name = file.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        text = f"# {name}\n\n{_links(name)}```yaml\n{file.read_text()}```\n"
        pages[f"recipes/{name}.md"] = text
    for file in sorted((ROOT / "examples").glob("*.py")):
        text = f"# {file.name}\n\n    python examples/{file.name}\n\n```python\n{file.read_text()}```\n"
        pages[f"examples/{file.stem}.md"] = text
    return pages


def _links(recipe: str) -> str:
    folder = recipe.rpartition("/")[0]
    up = "../" * (recipe.count("/") + 1)
    links = []
    if (ROOT / "docs" / f"{folder}.md").exists() and folder != "data":
        links.append(f"[The method]({up}{folder}.md)")
    if folder not in ("data", "loggers", "inference", "prior"):
        card = f"-   ### {recipe}\n" in (ROOT / "docs" / "gallery.md").read_text()
        links.append(f"[The gallery]({up}gallery.md{f'#{anchor(recipe)}' if card else ''})")
    return " · ".join(links) + "\n\n" if links else ""


def anchor(heading: str) -> str:
    """Return the anchor of a heading as repository browsers form it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def site_path(path: str) -> str | None:
    """Return the site path of a file of the repository; ``None`` if the site does not have it."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    if path.startswith("recipes/") and path.endswith(".yaml"):
        return str(PurePosixPath(path).with_suffix(".md"))
    if path.startswith("examples/") and path.endswith(".py"):
        return str(PurePosixPath(path).with_suffix(".md"))
    return None


def relinked(text: str, path: str) -> str:
    """Return a file of the repository with links for the site; code is unchanged.

    Raises:
        ValueError: if a link leads to a file that the site does not have.
    """
    here = site_path(path) or path

    def link(match: re.Match[str]) -> str:
        target, hash_, rest = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        there = site_path(normpath(str(PurePosixPath(path).parent / target)))
        if there is None:
            raise ValueError(f"{path} links to {target}, which the site does not have")
        return f"{match[1]}{relpath(there, str(PurePosixPath(here).parent))}{hash_}{rest}"

    code = r"(^```.*?^```|`[^`\n]*`)"
    parts = re.split(code, text, flags=re.S | re.M)
    parts[::2] = [re.sub(r"(\]\(|(?:src|href)=\")([^)\s\"]+)", link, part) for part in parts[::2]]
    return "".join(parts)
