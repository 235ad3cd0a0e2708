"""Run the tutorials in docs/tutorials: their blocks in order, in an empty folder.

    python scripts/tutorials.py [NAME ...]

writes what each block prints into the block of text after it, and the pictures into docs/images.

A block of Python runs, and all of a page share one set of names. A block of Python or YAML that begins with
``# NAME.py`` or ``# NAME.yaml`` is a file, which is written and not run. A block of ``sh`` holds ``lebm``
commands, one per line. What they print is shown and compared only where a block of text follows, since a
training prints its progress.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(
    r"^```(?P<language>python|sh|yaml)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?",
    re.S | re.M,
)
FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")


def commands(code: str) -> list[list[str]]:
    """The words of each command of a block of ``sh``."""
    return [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]


def run(block: re.Match[str], names: dict[str, object], where: str) -> None:
    """Run one block, in the current folder."""
    if file := FILE.match(block["code"]):
        Path(file[1]).write_text(block["code"])
    elif block["language"] == "python":
        exec(compile(block["code"], where, "exec"), names)
    elif block["language"] == "sh":
        from lebm.__main__ import main

        for _, *words in commands(block["code"]):
            if code := main(words):
                raise RuntimeError(f"{where}: lebm {shlex.join(words)} ended with {code}")


@contextlib.contextmanager
def modules_of(folder: Path) -> Iterator[None]:
    """Import from a folder inside the block, and forget its modules afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
        for name, module in list(sys.modules.items()):
            if folder in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]


def outputs(page: Path) -> list[tuple[str, str | None]]:
    """What each block prints now, and what the page says it prints; in the current folder."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, object] = {"__name__": "tutorial"}
    found = []
    with modules_of(Path.cwd()):
        for number, block in enumerate(BLOCK.finditer(page.read_text()), start=1):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                run(block, names, f"{page.name}, block {number}")
            shown = block["language"] == "python" or block["printed"] is not None
            found.append((printed.getvalue() if shown else "", block["printed"]))
    return found


def rewrite(page: Path) -> None:
    """Bring the printed text and the pictures of a page up to date."""
    printed = [text for text, _ in outputs(page)]
    for picture in Path.cwd().glob("*.png"):
        shutil.copy(picture, ROOT / "docs" / "images" / picture.name)

    def replace(block: re.Match[str]) -> str:
        text = printed.pop(0)
        code = f"```{block['language']}\n{block['code']}```\n"
        return code + (f"\n```text\n{text}```\n" if text else "")

    page.write_text(BLOCK.sub(replace, page.read_text()))


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(page.stem for page in PAGES.glob("*.md")):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            rewrite(PAGES / f"{name}.md")
            os.chdir(ROOT)
