"""Run the notebooks of docs/, store small outputs, and convert them to Markdown.

    python scripts/notebooks.py [NAME ...]

Each notebook runs in an empty folder. The output of its cells is stored without stderr. Cells of ``%%sh``
hold ``lebm`` commands; training progress is omitted. Pictures are stored with at most 720 pixels in width and
128 colours, text with at most 40 lines.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
LINES, WIDTH, COLOURS, SECONDS = 40, 720, 128, 600


def text(page: Path) -> str:
    """Return a page of the documentation as Markdown, without the pictures of a notebook."""
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    whole, pictures = markdown(page)
    names = tuple(f"]({name})" for name in pictures)
    return "\n".join(line for line in whole.split("\n") if not line.endswith(names or "\n"))


def markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, with its pictures by name: ``energy_prior-1.png``, ..."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(fenced(source))
        if printed := "".join(shown(cell)):
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for picture in drawn(cell):
            name = f"{path.stem}-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode(picture)
            parts.append(f"![What the cell above draws]({name})")
    return "\n\n".join(parts) + "\n", pictures


def fenced(source: str) -> str:
    """Return the code of a cell as a Markdown block; a file that it writes is named by a comment."""
    first, _, rest = source.partition("\n")
    if first == "%%sh":
        return f"```sh\n{rest}\n```"
    if first.startswith("%%writefile "):
        name = first.split()[1]
        return f"```{'yaml' if name.endswith('.yaml') else 'python'}\n# {name}\n{rest}\n```"
    return f"```python\n{source}\n```"


def shown(cell: dict[str, Any]) -> Iterator[str]:
    """Yield the text that a cell prints, and the value of its last line."""
    for output in cell["outputs"]:
        if output.get("name") == "stdout":
            yield "".join(output["text"])
        elif output["output_type"] == "execute_result" and "image/png" not in output["data"]:
            yield "".join(output["data"]["text/plain"]) + "\n"


def drawn(cell: dict[str, Any]) -> Iterator[str]:
    """Yield the pictures of a cell, as PNG in base 64."""
    for output in cell["outputs"]:
        if picture := output.get("data", {}).get("image/png"):
            yield "".join(picture)


def run(path: Path, folder: Path) -> dict[str, Any]:
    """Run all cells of a notebook in a folder and return it; `lebm` is the one beside this Python.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell or one of its commands fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    path_of_commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PATH": path_of_commands})
    for cell in small(notebook)["cells"]:
        for output in cell.get("outputs", ()):
            if "text" in output:
                output["text"] = output["text"].replace(f"{folder.resolve()}{os.sep}", "")
    return notebook


def small(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with outputs small enough for a repository."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
            cell["outputs"] = outputs(cell)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the text of a cell as one stream, and its pictures."""
    source = "".join(cell["source"])
    silent = "lebm fit " in source or source.startswith("%%writefile")
    lines = [] if silent else "".join(shown(cell)).splitlines(keepends=True)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 5], "...\n", *lines[-4:]]
    stream = {"output_type": "stream", "name": "stdout", "text": "".join(lines)}
    pictures = [{"image/png": reduced(picture)} for picture in drawn(cell)]
    kept = [{"output_type": "display_data", "data": data, "metadata": {}} for data in pictures]
    return [stream, *kept] if lines else kept


def reduced(picture: str) -> str:
    """Return a PNG in base 64 with few pixels and few colours."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image = image.convert("RGB")
        if image.width > WIDTH:
            image = image.resize((WIDTH, image.height * WIDTH // image.width), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.quantize(COLOURS).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    import nbformat

    for name in sys.argv[1:] or sorted(page.stem for page in PAGES.glob("*.ipynb")):
        path = PAGES / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, Path(folder))
        path.write_text(nbformat.writes(nbformat.from_dict(notebook)) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
