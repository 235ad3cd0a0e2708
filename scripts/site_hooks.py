"""Hooks of MkDocs and griffe for the site, whose files have the paths of the repository.

Recipes, examples and notebooks are pages. In docstrings the roles of Sphinx become links. Mathematics becomes
MathML, which browsers draw without scripts and fonts."""

from __future__ import annotations

import html
import importlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import latex2mathml.converter
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

sys.path.insert(0, str(Path(__file__).parent))

from notebooks import markdown as notebook

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("*.md", "docs/**/*.*", "recipes/**/*.yaml", "examples/*.py")


class Source(File):
    """A recipe, an example or a notebook, which is a page."""

    def is_documentation_page(self) -> bool:
        return True


def on_config(config: Any) -> None:
    """Set anchors as repository browsers do."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")


def on_files(files: Files, config: Any) -> Files:
    """Replace the files of docs/ by the files of the repository that belong to the site."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    found = {path for part in PARTS for path in ROOT.glob(part)}
    return Files([*theme, *(file for path in sorted(found) for file in files_of(path, config))])


def files_of(path: Path, config: Any) -> list[File]:
    """Return a file, as a page if it is a source; with a notebook, its pictures and the notebook itself."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".ipynb":
        text, pictures = notebook(path)
        heading, rest = text.split("\n", 1)
        text = f"{heading}\n\n[This page as a notebook](notebooks/{path.name})\n{rest}"
        parts = {f"notebooks/{path.name}": path.read_bytes(), **pictures}
        folder = path.relative_to(ROOT).parent.as_posix()
        own = [File.generated(config, f"{folder}/{part}", content=data) for part, data in parts.items()]
        return [Source.generated(config, name, content=text), *own]
    if path.suffix in (".yaml", ".py"):
        language = path.suffix.replace(".py", "python").strip(".")
        text = f"# {name}\n\n```{language}\n{path.read_text()}```\n"
        return [Source.generated(config, name, content=text)]
    return [File(name, str(ROOT), config.site_dir, use_directory_urls=False)]


def on_page_content(content: str, **_: Any) -> str:
    """Convert formulas, and link code that names a public class to its entry."""
    content = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, content, flags=re.S)
    return re.sub(r"<(a|autoref|pre|h\d)\b.*?</\1>|<code>([\w.]+)[^<]*</code>", named, content, flags=re.S)


def mathml(match: re.Match[str]) -> str:
    """Return a formula as MathML, with spaces that the converter omits: around ``~`` and after functions."""
    display = "block" if match[1] == "div" else "inline"
    formula = html.unescape(match[2]).strip()[2:-2].strip().replace("~", r" \sim ")
    converted = latex2mathml.converter.convert(formula, display=display)
    function = r"(<mi>(?:log|exp|min|max|tr|softplus)</mi>)(?!<mo)"
    return re.sub(function, r'\1<mspace width="0.17em" />', converted)


def named(match: re.Match[str]) -> str:
    """Return code with a link if it is the name of a class; text in links and headings is unchanged."""
    owner, dot, member = (match[2] or "").partition(".")
    if owner in entries():
        return f'<autoref optional identifier="{entries()[owner]}{dot}{member}">{match[0]}</autoref>'
    return match[0]


@cache
def entries() -> dict[str, str]:
    """Return the entry of every class in the reference whose name has one meaning, by name."""
    found: dict[str, str] = {}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for module in re.findall(r"^::: (\S+)", page.read_text(), re.M):
            for name in getattr(importlib.import_module(module), "__all__", ()):
                found[name] = "" if name in found else f"{module}.{name}"
    return {name: path for name, path in found.items() if path and name[0].isupper()}


def role(match: re.Match[str]) -> str:
    """Return code for a role of Sphinx, with a link if it has the whole path."""
    shown = match[2].rpartition(".")[2] if match[1] else match[2]
    code = f"<code>{shown}</code>"
    whole = match[2].startswith("lebm.")
    return f'<autoref optional identifier="{match[2]}">{code}</autoref>' if whole else code


def display(match: re.Match[str]) -> str:
    """Return a ``.. math::`` block as ``$$``, with the following text unchanged."""
    return f"\n$$\n{' '.join(match[1].split())}\n$$\n\n"


class Docstrings(griffe.Extension):
    """An extension that rewrites every docstring of the package in Markdown before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(
                r"^\.\. math::((?:.*\n?)(?:[ ]+\S.*\n?)*)", display, obj.docstring.value, flags=re.M
            )
            text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
            text = re.sub(r":\w+:`(~?)([^`]*)`", role, text)
            text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
            obj.docstring.value = re.sub(r"(\w)::$", r"\1:", text, flags=re.M)
