"""The notebooks in docs/ run, print what is stored in them, and are small."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import notebooks

PAGES = sorted(notebooks.PAGES.glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
NEEDED = {"your_autoencoder": "diffusers"}
"""Extras that a notebook needs."""


def cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def assert_alike(now: str, stored: str) -> None:
    """The same words, and numbers within a tenth: machines round differently, and chains amplify that.

    Checksums of files differ in every run, because files hold the time and the machine of their training.
    """
    now, stored = DIGEST.sub("digest", now), DIGEST.sub("digest", stored)
    assert NUMBER.sub("#", now).split() == NUMBER.sub("#", stored).split()
    for one, other in zip(NUMBER.findall(now), NUMBER.findall(stored), strict=True):
        assert float(one) == pytest.approx(float(other), rel=0.1, abs=0.1), f"{now!r} is not {stored!r}"


def test_outputs_are_compared_by_words_and_by_numbers() -> None:
    assert_alike("mean 1.02; gap -0.3", "mean 1.00; gap -0.35")
    assert_alike(f"SHA-256 {64 * 'a'}", f"SHA-256 {64 * '1'}")
    for other in ("mean 2.00; gap -0.35", "sum 1.00; gap -0.35", "mean 1.00"):
        with pytest.raises(AssertionError):
            assert_alike("mean 1.02; gap -0.3", other)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_prints_and_draws_in_an_empty_folder_what_is_stored_in_it(
    page: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip(NEEDED.get(page.stem, "torch"))
    stored = json.loads(page.read_text(encoding="utf-8"))
    for now, before in zip(cells(notebooks.run(page, tmp_path)), cells(stored), strict=True):
        assert_alike("".join(notebooks.shown(now)), "".join(notebooks.shown(before)))
        assert len(list(notebooks.drawn(now))) == len(list(notebooks.drawn(before)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_small_and_every_cell_that_prints_has_its_output(page: Path) -> None:
    """The quick part of the test above."""
    text = page.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(?:tmp|home|root|Users|work)/", text)
    assert len(cells(json.loads(text))) >= 3
    for cell in cells(json.loads(text)):
        source = "".join(cell["source"])
        if source.startswith("%%sh\n"):
            lines = source.replace("\\\n", " ").splitlines()[1:]
            assert {line.split()[0] for line in lines} == {"lebm"}, source
        elif not source.startswith("%%writefile "):
            compile(source, page.name, "exec")
            assert ("print(" in source) == bool("".join(notebooks.shown(cell))), source


def test_the_prior_of_an_autoencoder_takes_at_most_25_lines() -> None:
    prior, commands = (
        next("".join(cell["source"]) for cell in cells(notebook) if word in "".join(cell["source"]))
        for notebook in [json.loads((notebooks.PAGES / "your_autoencoder.ipynb").read_text())]
        for word in ("FitBase", "%%sh")
    )
    assert {"sample", "condition", "restore"} <= set(commands.split())
    lines = [line for line in f"{prior}\n{commands}".splitlines() if line.strip() and line != "%%sh"]
    assert len(lines) <= 25


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": {"x": 1}, "outputs": list(outputs), "id": "a"}


def test_outputs_are_stored_small(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((1440, 100), 80).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    long = {"output_type": "stream", "name": "stdout", "text": "line\n" * 100}
    error = {"output_type": "stream", "name": "stderr", "text": "a warning\n"}
    shown = {"output_type": "display_data", "data": {"image/png": picture, "text/plain": "<Figure>"}}
    value = {"output_type": "execute_result", "data": {"text/plain": "7"}}
    notebook = notebooks.small(
        {"cells": [code("f()", long, error, shown), code("x", value), code("%%sh\nlebm fit -c a", long)]}
    )
    first, second, third = (cell["outputs"] for cell in notebook["cells"])
    assert first[0]["text"].count("\n") == notebooks.LINES
    assert len(first) == 2
    with Image.open(io.BytesIO(base64.b64decode(first[1]["data"]["image/png"]))) as image:
        assert image.size == (notebooks.WIDTH, 50)
    assert len(first[1]["data"]["image/png"]) < len(picture) / 2
    assert [output["text"] for output in second] == ["7\n"]
    assert third == []
    page = tmp_path / "page.ipynb"
    page.write_text(json.dumps(notebook))
    text, pictures = notebooks.markdown(page)
    assert "```python\nx\n```\n\n```text\n7\n```" in text
    assert "```sh\nlebm fit -c a\n```" in text
    assert list(pictures) == ["page-1.png"]
    assert "(page-1.png)" in text
    assert "page-1.png" not in notebooks.text(page)


@pytest.mark.slow
def test_a_command_that_fails_ends_the_run(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    page, folder = tmp_path / "page.ipynb", tmp_path / "empty"
    folder.mkdir()
    first = (
        code("%%writefile part.py\nVALUE = 1"),
        code("import part\n\nprint(part.VALUE)"),
        code("%%sh\nlebm --version"),
    )
    for end, fails in ((), False), ((code("%%sh\nlebm cat no_recipe"),), True):
        made = [
            cell | {"id": f"a{number}", "execution_count": None} for number, cell in enumerate((*first, *end))
        ]
        page.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        if fails:
            with pytest.raises(Exception, match="no_recipe"):
                notebooks.run(page, folder)
        else:
            outputs = ["".join(notebooks.shown(cell)) for cell in notebooks.run(page, folder)["cells"]]
            assert outputs[:2] == ["", "1\n"]
            assert outputs[2].startswith("lebm ")
