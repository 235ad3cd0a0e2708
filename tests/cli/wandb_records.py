"""What wandb wrote into the folder of an offline run, read back from its file of records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768  # the layout is that of LevelDB's log: blocks of this size, records in pieces
WHOLE, FIRST, LAST = 1, 2, 4


class Recorded:
    """The records of the offline runs of a run folder, oldest first.

    Attributes:
        ids: of each attempt.
        projects: of each attempt.
        config: nested, as the last attempt left it.
        history: one mapping per logging call.
        summary: by key; a nested key is a tuple.
        artifacts: the records of artifacts.
        exit_codes: of each attempt that ended.
    """

    def __init__(self, run_dir: Path, attempt: int | None = None) -> None:
        self.ids: list[str] = []
        self.projects: list[str] = []
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[Any, Any] = {}
        self.artifacts: list[Any] = []
        self.exit_codes: list[int] = []
        begun = {folder: finished(folder) for folder in sorted(run_dir.glob("wandb/offline-run-*"))}
        self.folders = [folder for folder, found in begun.items() if found]
        for folder in self.folders if attempt is None else [self.folders[attempt]]:
            for record in begun[folder]:
                self._add(record)

    def _add(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.ids.append(record.run.run_id)
            self.projects.append(record.run.project)
            self._configure(record.run.config)
        elif kind == "config":
            self._configure(record.config)
        elif kind == "history":
            self.history.append({name(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            self.summary |= {name(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            self.artifacts.append(record.artifact)
        elif kind == "exit":
            self.exit_codes.append(record.exit.exit_code)

    def _configure(self, record: Any) -> None:
        self.config |= {name(item): json.loads(item.value_json) for item in record.update}

    def media(self, path: str) -> Path:
        """The file behind a picture or a page."""
        found = [folder / "files" / path for folder in self.folders]
        return next(path for path in found if path.is_file())

    def tables(self, key: str) -> list[dict[str, Any]]:
        """Every table that was logged under a key; wandb stores it as an artifact beside its pictures.

        The cell of a picture becomes the path of its file.
        """
        shown = []
        for artifact in self.artifacts:
            files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
            if artifact.type == "run_table" and f"{key}.table.json" in files:
                table = json.loads(files[f"{key}.table.json"].read_text())
                data = [
                    [files[cell["path"]] if isinstance(cell, dict) else cell for cell in row]
                    for row in table["data"]
                ]
                shown.append({"columns": table["columns"], "data": data})
        return shown

    @property
    def models(self) -> list[Any]:
        """The artifacts that are models."""
        return [artifact for artifact in self.artifacts if artifact.type == "model"]


def name(item: Any) -> Any:
    """The key of an item; a tuple if it is nested deeper than one level."""
    nested = tuple(item.nested_key)
    return item.key if not nested else nested[0] if len(nested) == 1 else nested


def finished(folder: Path) -> list[Any]:
    """The records of an attempt once the last one is there: a process of wandb's own writes the file.

    An attempt to begin that wandb gave up on a busy machine has a folder without a file, and no records.
    """
    found: list[Any] = []
    for attempt in range(600):
        files = list(folder.glob("*.wandb"))
        if not files and attempt > 100:
            return []
        found = [record for file in files for record in records(file.read_bytes())]
        if found and found[-1].WhichOneof("record_type") in ("exit", "footer"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{folder} has no end, it holds {len(found)} records")


def records(data: bytes) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    position, whole = 7, b""  # after the head of the file
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, piece = struct.unpack_from("<IHB", data, position)
        position += 7
        whole = (b"" if piece in (WHOLE, FIRST) else whole) + data[position : position + length]
        position += length
        if piece in (WHOLE, LAST):
            yield Record.FromString(whole)
