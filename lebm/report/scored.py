"""What ``lebm score`` wrote into a run folder: the rows with the highest scores, and its pictures."""

from __future__ import annotations

import csv
import heapq
import math
from dataclasses import dataclass, field
from pathlib import Path

from lebm.errors import UserError

__all__ = ["Scored", "read_scores"]

SHOWN = 10  # rows of a run
SCORES = ("anomaly_score", "combined")  # columns that lebm score writes
ENDS = {"most": "most anomalous", "least": "least anomalous"}


@dataclass
class Scored:
    """One table of scores.

    Attributes:
        file: name of the table.
        score: name of the column of the scores.
        count: number of its rows.
        top: the rows with the highest scores, the highest first; a score that is not finite is left out.
        files: pictures of the rows at both ends, by what they show.
        pictures: the same as addresses inside the page.
    """

    file: str
    score: str
    count: int
    top: list[dict[str, str]]
    files: dict[str, Path] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


def read_scores(run: Path) -> Scored | None:
    """The newest ``scores.csv``, ``scores-2.csv``, ... of a run folder; ``None`` if there is none.

    Raises:
        UserError: if the file is not such a table.
    """
    files = list(run.glob("scores*.csv"))
    if not files:
        return None
    newest = max(files, key=lambda file: (file.stat().st_mtime_ns, file.name))
    try:
        with newest.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            score = next((name for name in SCORES if name in (rows.fieldnames or ())), None)
            if score is None:
                raise UserError(f"{newest}: not a table of scores, it has no column {' or '.join(SCORES)}")
            values = [(float(row[score] or "nan"), -number, row) for number, row in enumerate(rows)]
    except UserError:
        raise
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{newest}: not a table of scores ({str(error)[:80]})") from error
    finite = (item for item in values if math.isfinite(item[0]))
    top = [row for _, _, row in heapq.nlargest(SHOWN, finite, key=lambda item: item[:2])]
    pictures = {what: newest.with_name(f"{newest.stem}-{end}.png") for end, what in ENDS.items()}
    return Scored(newest.name, score, len(values), top, pictures)
