"""Reader of run folders for a report."""

import base64
import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lebm.config.recipes import load_recipe
from lebm.errors import UserError
from lebm.evaluation.record import read_evaluation
from lebm.run.folder import stored_json

__all__ = ["FILES", "RunRecord", "gather"]

_NAMES = ("config.yaml", "summary.json", "test.json", "evaluation.json")
FILES = {name.partition(".")[0]: name for name in _NAMES}
"""The file in a run folder behind each attribute of :class:`RunRecord`."""
PICTURE_WIDTH, PICTURE_BYTES = 1000, 400_000  # limits above which a picture is reduced
SENTENCES, LONGEST = 20, 1000  # largest numbers of sentences and characters
SCORED = 10  # largest number of rows with the highest scores
SCORES = ("anomaly_score", "combined")  # columns that lebm score writes


@dataclass
class RunRecord:
    """A run as a report shows it; parts that the folder lacks are empty.

    Attributes:
        curves: points ``(step, value)`` by logged name.
        pictures: the newest picture of each kind, as an address inside the page.
        scored: a table from ``lebm score``: its ``file``, score column ``score``, number ``rows`` of rows,
            highest rows ``top``, and ``pictures``.
        damaged: a line for each file, or part of a file, that could not be read.
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
    scored: dict[str, Any] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The class name of the method."""
        path = self.evaluation.get("method") or dict(self.config.get("model") or {}).get("class_path") or ""
        return str(path).rpartition(".")[2]

    @contextmanager
    def without(self, file: Path) -> Iterator[None]:
        """Continue without a file that cannot be read in the block, with a line in :attr:`damaged`."""
        try:
            yield
        except UserError as error:
            self.damaged.append(f"{error}; left out")
        except Exception as error:  # a damaged file can raise any error
            self.damaged.append(f"{file}: damaged ({type(error).__name__}); left out")


def gather(folders: list[Path]) -> list[RunRecord]:
    """Read run folders. A damaged file is skipped, with a line in :attr:`RunRecord.damaged`.

    Raises:
        UserError: for a path that is not a run folder.
    """
    for folder in folders:
        if not any((folder / name).is_file() for name in FILES.values()):
            files = "config.yaml, summary.json or evaluation.json"
            raise UserError(f"{folder}: not a run folder with {files}; lebm evaluate measures a model alone")
    names = [folder.resolve().name for folder in folders]
    return [
        _read(RunRecord(name if names.count(name) == 1 else str(folder), folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _read(record: RunRecord) -> RunRecord:
    folder = record.folder
    readers = {"config": load_recipe, "evaluation": read_evaluation}
    for attribute, name in FILES.items():
        if (folder / name).is_file():
            with record.without(folder / name):
                read = readers.get(attribute)
                setattr(record, attribute, read(folder / name) if read else stored_json(folder, name))
    if (folder / "metrics.csv").exists():
        with record.without(folder / "metrics.csv"):
            _read_curves(record, folder / "metrics.csv")
        curves = record.curves.items()
        record.curves = {name: points for name, points in curves if len({step for step, _ in points}) > 1}
    for file in (folder / "samples" / "latest.txt", folder / "samples" / "test.txt"):
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            record.sentences = [line[:LONGEST] for line in lines[:SENTENCES]]
    patterns = ("images/*.png", "images/*/latest.png", "images/*/test.png")
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    pictures = {
        file.parent.name if file.parent.parent == folder / "images" else file.stem: file for file in found
    }
    record.pictures = _urls(record, pictures)
    tables = sorted(folder.glob("scores*.csv"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    for newest in tables[-1:]:
        with record.without(newest):
            record.scored = _scores(record, newest)
    return record


def _read_curves(record: RunRecord, file: Path) -> None:
    """Fill the curves up to a damaged line; values that are not numbers are skipped."""
    lost = 0
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for name, text in row.items():
                if name and name not in ("step", "epoch") and text:
                    try:
                        record.curves.setdefault(name, []).append((float(row["step"]), float(text)))
                    except (TypeError, ValueError, KeyError):
                        lost += 1
    if lost:
        raise UserError(f"{file}: cells that are not numbers at a step: {lost}")


def _scores(record: RunRecord, file: Path) -> dict[str, Any]:
    """Read a table from ``lebm score``: ``scores.csv``, ``scores-2.csv``, ..."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [{name: row[name] or "" for name in row if name} for row in csv.DictReader(lines)]
    (score, *_) = [name for name in SCORES if not rows or name in rows[0]]
    ranked = [(float(row[score] or "nan"), row) for row in rows]
    finite = sorted((item for item in ranked if math.isfinite(item[0])), key=lambda item: -item[0])
    top = [{**row, score: f"{value:.4g}"} for value, row in finite[:SCORED]]
    ends = {f"{end} anomalous": file.with_name(f"{file.stem}-{end}.png") for end in ("most", "least")}
    ends = {what: picture for what, picture in ends.items() if picture.is_file()}
    pictures = _urls(record, ends)
    return {"file": file.name, "score": score, "rows": len(rows), "top": top, "pictures": pictures}


def _urls(record: RunRecord, files: dict[str, Path]) -> dict[str, str]:
    """Return pictures inside the page by kind; a large picture is reduced."""
    from PIL import Image

    urls = {}
    for what, file in files.items():
        with record.without(file):
            content = file.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.load()  # fails for a truncated picture
                if image.width > PICTURE_WIDTH or len(content) > PICTURE_BYTES:
                    small, buffer = image.convert("RGB"), io.BytesIO()
                    small.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
                    small.quantize(128).save(buffer, "PNG", optimize=True)
                    content = buffer.getvalue()
            urls[what] = "data:image/png;base64," + base64.b64encode(content).decode()
    return urls
