"""Hooks of MkDocs and griffe for the site: pages from elsewhere, links, docstrings and mathematics.

In docstrings the roles of Sphinx become links. Mathematics becomes MathML, which browsers draw without
scripts and fonts.
"""

from __future__ import annotations

import html
import logging
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
import latex2mathml.converter
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from notebooks import markdown as notebook
from site_pages import OUTSIDE, ROOT, anchor, api_pages, public_names, relinked, resolve, rooms, source_pages

log = logging.getLogger("mkdocs.hooks.site")
NAMES = public_names()
ORIGIN = {there: here for here, there in OUTSIDE.items()}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}


def on_config(config: Any) -> Any:
    """Set anchors as repository browsers do, and one reference page per package."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = lambda text, separator: anchor(text)
    for item in config.nav:
        if "API" in item:
            item["API"] = ["api/index.md", *(f"api/{room.rpartition('.')[2]}.md" for room in rooms())]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/, including pages of notebooks with their pictures.

    The home page is README.md of the repository.
    """
    for file in [file for file in files if file.src_uri == "README.md"]:
        files.remove(file)
    for path, content in {**api_pages(), **source_pages()}.items():
        files.append(File.generated(config, path, content=content))
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        page = path.relative_to(ROOT / "docs").with_suffix(".md")
        text, pictures = notebook(path)
        for name, content in {page.name: text, **pictures}.items():
            files.append(File.generated(config, (page.parent / name).as_posix(), content=content))
    for origin, path in OUTSIDE.items():
        files.append(File.generated(config, path, content=(ROOT / origin).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links to pages of the site. A page alone in its tab shows no list."""
    path = page.file.src_uri
    if path in ("index.md", "gallery.md"):
        page.meta["hide"] = ["navigation"]
    if path.startswith(("api/", "recipes/", "examples/")):
        return markdown
    text = relinked(markdown, ORIGIN.get(path, f"docs/{path}"))
    name = PurePosixPath(path).with_suffix(".ipynb")
    if not (ROOT / "docs" / name).exists():
        return text
    heading, rest = text.split("\n", 1)
    return f"{heading}\n\n[This page as a notebook]({name.name})\n{rest}"


def on_page_content(content: str, page: Any, **_: Any) -> str:
    return named(mathml(content, page.file.src_uri))


def mathml(content: str, path: str) -> str:
    """Return the page with formulas as MathML; a formula that cannot be converted is a warning."""

    def convert(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        formula = html.unescape(match[2]).strip()[2:-2].strip()
        try:
            return spaced(latex2mathml.converter.convert(formula, display=display))
        except Exception as error:
            log.warning("%s: no MathML for %s: %s", path, formula, error)
            return match[0]

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', convert, content, flags=re.S)


def spaced(formula: str) -> str:
    """Add spaces that the converter omits: around ``~`` and after functions."""
    formula = formula.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    function = r"(<mi>(?:log|exp|min|max|tr|softplus)</mi>)(?!<mo)"
    return re.sub(function, r'\1<mspace width="0.17em" />', formula)


def named(content: str) -> str:
    """Link code that is the name of a public class or function to its entry."""
    parts, inside = re.split(r"(<code>[^<]*</code>|</?\w+[^>]*>)", content), 0
    for number, part in enumerate(parts):
        tag = re.match(r"<(/?)(\w+)", part)
        if part.startswith("<code>"):
            name = html.unescape(part[6:-7])
            path = resolve(name.partition("(")[0], NAMES) if re.fullmatch(r"[\w.]+(\(.*\))?", name) else None
            if path and not inside:
                parts[number] = f'<autoref optional identifier="{path}">{part}</autoref>'
        elif tag and tag[2] in HEADINGS | {"a", "pre", "autoref"}:
            inside += -1 if tag[1] else 1
    return "".join(parts)


def link(match: re.Match[str]) -> str:
    """Return a link to the reference, or plain code without an entry."""
    target = match[1]
    shown = target.rpartition(".")[2] if target.startswith("~") else target
    path = resolve(target, NAMES)
    code = f"<code>{shown}</code>"
    return f'<autoref optional identifier="{path}">{code}</autoref>' if path else code


def displayed(match: re.Match[str]) -> str:
    """Return a ``.. math::`` block as ``$$``, with the following text unchanged."""
    formula = " ".join(line.strip() for line in match[1].strip().splitlines())
    return f"\n$$\n{formula}\n$$\n\n"


def markdown(text: str) -> str:
    """Return the docstring ``text`` in the Markdown of the site."""
    text = re.sub(r"^\.\. math::((?:.*\n?)(?:[ ]+\S.*\n?)*)", displayed, text, flags=re.M)
    text = re.sub(r":math:`([^`]*)`", lambda match: rf"\({match[1]}\)", text)
    text = re.sub(r":(?:class|func|meth|mod|attr|data|exc):`([^`]*)`", link, text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return re.sub(r"(\w)::$", r"\1:", text, flags=re.M)


class Docstrings(griffe.Extension):
    """An extension that rewrites every docstring of the package once, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
