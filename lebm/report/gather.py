"""Reading the files of a run folder for a report."""

from __future__ import annotations

import base64
import csv
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lebm import hub, pretrained
from lebm.config.checks import load_recipe
from lebm.errors import UserError
from lebm.evaluation.record import read_evaluation
from lebm.report.scored import Scored, read_scores
from lebm.run.folder import stored_json

__all__ = ["FILES", "RunRecord", "data_url", "gather"]

FILES = {
    "config": "config.yaml",
    "summary": "summary.json",
    "test": "test.json",
    "evaluation": "evaluation.json",
    "curves": "metrics.csv",
}
"""Which file of a run folder an attribute of :class:`RunRecord` comes from."""
PICTURE_WIDTH = 1000  # pixels; larger pictures are drawn smaller
_SKIPPED = ("step", "epoch")
SENTENCES = 20  # of a run, at most
LONGEST = 1000  # characters of a sentence


@dataclass
class RunRecord:
    """A run as a report shows it; whatever the folder lacks is empty.

    Attributes:
        name: name of the folder, or with its parents where two folders share a name.
        folder: the run folder.
        config: the resolved recipe.
        summary: of training.
        test: of the test pass.
        evaluation: ``evaluation.json``.
        curves: by logged name, points ``(step, value)``.
        pictures: newest picture by what it shows, each as the address of an image inside the page.
        sentences: those of the newest samples, for a model of sentences.
        scored: what ``lebm score`` wrote.
        damaged: a line for each file, or part of one, that was left out because it cannot be read.
    """

    name: str
    folder: Path = Path()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    scored: Scored | None = None
    damaged: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """Name of the method's class."""
        path = self.evaluation.get("method") or (self.config.get("model") or {}).get("class_path") or ""
        return str(path).rsplit(".", 1)[-1]

    @contextmanager
    def without(self, file: Path) -> Iterator[None]:
        """Goes on without a file whose content fails in the block, with a line in :attr:`damaged`."""
        try:
            yield
        except UserError as error:
            self.damaged.append(f"{error}; left out")
        except Exception as error:  # a damaged file can hold anything, so anything can fail
            self.damaged.append(f"{file}: damaged ({type(error).__name__}); left out")


def gather(folders: list[Path]) -> list[RunRecord]:
    """Read run folders. A damaged file is left out, with a line in :attr:`RunRecord.damaged`.

    Raises:
        UserError: for what is not a run folder.
    """
    for folder in folders:
        if folder.is_file() or str(folder).startswith((pretrained.PREFIX, hub.PREFIX)):
            raise UserError(
                f"{folder}: a report is of run folders, with their curves and pictures, and this is a model"
                f" alone; lebm evaluate {folder} measures it"
            )
        if not folder.is_dir():
            raise UserError(f"{folder}: no such run folder")
        if not any((folder / name).is_file() for name in ("config.yaml", "summary.json", "evaluation.json")):
            raise UserError(f"{folder}: not a run folder, it holds neither config.yaml nor evaluation.json")
    names = [folder.resolve().name for folder in folders]
    return [
        _read(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _read(folder: Path, name: str) -> RunRecord:
    record = RunRecord(name, folder)
    readers: dict[str, Callable[[Path], Any]] = {
        "config": lambda file: load_recipe(file) if file.is_file() else {},
        "summary": lambda file: stored_json(folder, file.name),
        "test": lambda file: stored_json(folder, file.name),
        "evaluation": lambda file: read_evaluation(file) if file.is_file() else {},
        "curves": lambda file: _curves(record, file),
    }
    for attribute, read in readers.items():
        with record.without(folder / FILES[attribute]):
            setattr(record, attribute, read(folder / FILES[attribute]))
    with record.without(folder / "samples"):
        record.sentences = _sentences(folder / "samples")
    with record.without(folder / "images"):
        record.pictures = _urls(record, _pictures(folder / "images"))
    with record.without(folder / "scores.csv"):
        if (scored := read_scores(folder)) is not None:
            record.scored = scored
            scored.pictures = _urls(record, scored.files)
    return record


def _curves(record: RunRecord, file: Path) -> dict[str, list[tuple[float, float]]]:
    """Points of every column that has values at two steps at least."""
    if not file.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    lost = 0
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        try:
            for row in rows:
                for name, text in row.items():
                    if name and name not in _SKIPPED and text:
                        try:
                            found.setdefault(name, []).append((float(row["step"]), float(text)))
                        except (TypeError, ValueError, KeyError):
                            lost += 1
        except (csv.Error, UnicodeDecodeError) as error:
            record.damaged.append(
                f"{file}: damaged after line {rows.line_num} ({error}); the rest is left out"
            )
    if lost:
        record.damaged.append(f"{file}: cells that are not numbers at a step: {lost}; left out")
    return {name: points for name, points in found.items() if len({step for step, _ in points}) > 1}


def _urls(record: RunRecord, files: dict[str, Path]) -> dict[str, str]:
    urls = {}
    for what, file in files.items():
        with record.without(file):
            if file.is_file():
                urls[what] = data_url(file)
    return urls


def _pictures(folder: Path) -> dict[str, Path]:
    """``images/<what>/test.png``, else ``latest.png``; and pictures that lie in ``images`` itself, such as
    ``lebm sample`` writes.
    """
    if not folder.is_dir():
        return {}
    found = {file.stem: file for file in sorted(folder.glob("*.png"))}
    for kind in sorted(folder.iterdir()):
        newest = next((kind / name for name in ("test.png", "latest.png") if (kind / name).is_file()), None)
        if kind.is_dir() and newest is not None:
            found[kind.name] = newest
    return found


def _sentences(folder: Path) -> list[str]:
    """At most ``SENTENCES`` lines of ``samples/test.txt``, else of ``latest.txt``."""
    file = next((folder / name for name in ("test.txt", "latest.txt") if (folder / name).is_file()), None)
    if file is None:
        return []
    with file.open(encoding="utf-8", errors="replace") as lines:
        return [line.rstrip("\n")[:LONGEST] for line in itertools.islice(lines, SENTENCES)]


def data_url(file: Path) -> str:
    """A picture inside the page: the file itself, or a palette PNG of at most 1000 pixels per row if that is
    smaller or the file is wider.
    """
    from PIL import Image

    content = file.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()  # fails for a picture that is cut off
        if image.width > PICTURE_WIDTH or len(content) > 400_000:
            small = image.convert("RGB")
            small.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
            buffer = io.BytesIO()
            small.quantize(128).save(buffer, "PNG", optimize=True)
            smaller = buffer.getvalue()
            if image.width > PICTURE_WIDTH or len(smaller) < len(content):
                content = smaller
    return "data:image/png;base64," + base64.b64encode(content).decode()
