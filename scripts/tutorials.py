"""Run the tutorials in docs/tutorials: their code in order, in one set of names, in an empty folder.

    python scripts/tutorials.py [NAME ...]

writes what each block of code prints into the block of text after it, and the pictures into docs/images.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.S | re.M)


def outputs(page: Path) -> list[tuple[str, str | None]]:
    """What each block of code prints now, and what the page says it prints; in the current folder."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, object] = {"__name__": "tutorial"}
    found = []
    for number, block in enumerate(BLOCK.finditer(page.read_text()), start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], f"{page.name}, block {number}", "exec"), names)
        found.append((printed.getvalue(), block["printed"]))
    return found


def rewrite(page: Path) -> None:
    """Bring the printed text and the pictures of a page up to date."""
    printed = [text for text, _ in outputs(page)]
    for picture in Path.cwd().glob("*.png"):
        shutil.copy(picture, ROOT / "docs" / "images" / picture.name)

    def replace(block: re.Match[str]) -> str:
        text = printed.pop(0)
        return f"```python\n{block['code']}```\n" + (f"\n```text\n{text}```\n" if text else "")

    page.write_text(BLOCK.sub(replace, page.read_text()))


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(page.stem for page in PAGES.glob("*.md")):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            rewrite(PAGES / f"{name}.md")
            os.chdir(ROOT)
