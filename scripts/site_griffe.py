"""Docstrings as the site needs them: the roles of Sphinx become links and mathematics of Markdown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from site_pages import public_names, resolve

NAMES = public_names()


def link(match: re.Match[str]) -> str:
    """A reference to the reference; plain code for what the reference does not have."""
    target = match[1]
    shown = target.rpartition(".")[2] if target.startswith("~") else target
    path = resolve(target, NAMES)
    code = f"<code>{shown}</code>"
    return f'<autoref optional identifier="{path}">{code}</autoref>' if path else code


def displayed(match: re.Match[str]) -> str:
    """A ``.. math::`` block as ``$$``, with nothing after it changed."""
    formula = " ".join(line.strip() for line in match[1].strip().splitlines())
    return f"\n$$\n{formula}\n$$\n\n"


def markdown(text: str) -> str:
    """The docstring ``text`` in the Markdown of the site."""
    text = re.sub(r"^\.\. math::((?:.*\n?)(?:[ ]+\S.*\n?)*)", displayed, text, flags=re.M)
    text = re.sub(r":math:`([^`]*)`", lambda match: rf"\({match[1]}\)", text)
    text = re.sub(r":(?:class|func|meth|mod|attr|data|exc):`([^`]*)`", link, text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return re.sub(r"(\w)::$", r"\1:", text, flags=re.M)


class Docstrings(griffe.Extension):
    """Rewrites every docstring of the package once, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
