"""Reading the files of a run folder for a report."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lebm import hub, pretrained
from lebm.config.checks import load_recipe
from lebm.errors import UserError
from lebm.evaluation.record import read_evaluation
from lebm.report.scored import Scored, read_scores
from lebm.run.folder import inside, ordinary, stored_json

__all__ = ["RunRecord", "gather"]

_SKIPPED = ("step", "epoch")
SENTENCES = 20  # of a run, at most
LONGEST = 1000  # characters of a sentence


@dataclass
class RunRecord:
    """A run as a report shows it; whatever the folder lacks is empty.

    Attributes:
        name: name of the folder, or with its parents where two folders share a name.
        config: the resolved recipe.
        summary: of training.
        test: of the test pass.
        evaluation: ``evaluation.json``.
        curves: by logged name, points ``(step, value)``.
        pictures: newest picture by what it shows.
        sentences: those of the newest samples, for a model of sentences.
        scored: what ``lebm score`` wrote.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    scored: Scored | None = None

    @property
    def method(self) -> str:
        """Name of the method's class."""
        path = self.evaluation.get("method") or (self.config.get("model") or {}).get("class_path") or ""
        return str(path).rsplit(".", 1)[-1]


def gather(folders: list[Path]) -> list[RunRecord]:
    """Read run folders.

    Raises:
        UserError: for what is no run folder, or holds a damaged file.
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
    config, evaluation = folder / "config.yaml", folder / "evaluation.json"
    return RunRecord(
        name,
        load_recipe(config) if ordinary(folder, config) else {},
        stored_json(folder, "summary.json"),
        stored_json(folder, "test.json"),
        read_evaluation(evaluation) if ordinary(folder, evaluation) else {},
        _curves(folder, folder / "metrics.csv"),
        _pictures(folder, folder / "images"),
        _sentences(folder, folder / "samples"),
        read_scores(folder),
    )


def _curves(run: Path, file: Path) -> dict[str, list[tuple[float, float]]]:
    """Points of every column that has values at two steps at least."""
    if not ordinary(run, file):
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for name, text in row.items():
                if name and name not in _SKIPPED and text:
                    try:
                        found.setdefault(name, []).append((float(row["step"]), float(text)))
                    except (TypeError, ValueError, KeyError):
                        continue
    return {name: points for name, points in found.items() if len({step for step, _ in points}) > 1}


def _pictures(run: Path, folder: Path) -> dict[str, Path]:
    """``images/<what>/test.png``, else ``latest.png``; and pictures that lie in ``images`` itself, such as
    ``lebm sample`` writes.
    """
    if not folder.is_dir():
        return {}
    inside(run, folder)
    found = {file.stem: file for file in sorted(folder.glob("*.png"))}
    for kind in sorted(folder.iterdir()):
        newest = next((kind / name for name in ("test.png", "latest.png") if (kind / name).is_file()), None)
        if kind.is_dir() and newest is not None:
            found[kind.name] = newest
    return {what: file for what, file in found.items() if ordinary(run, file)}


def _sentences(run: Path, folder: Path) -> list[str]:
    """At most ``SENTENCES`` lines of ``samples/test.txt``, else of ``latest.txt``."""
    file = next((folder / name for name in ("test.txt", "latest.txt") if (folder / name).is_file()), None)
    if file is None or not ordinary(run, file):
        return []
    with file.open(encoding="utf-8", errors="replace") as lines:
        return [line.rstrip("\n")[:LONGEST] for line in itertools.islice(lines, SENTENCES)]
