"""What a part of ``benchmarks.gpu`` is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Task:
    """What a part is given: its arguments, the settings of the command, and how it saves what it has."""

    arguments: Mapping[str, Any]
    seconds: float
    device: str
    dry: bool
    data: Mapping[str, str | None]
    runs: Path
    save: Callable[[Any], None]

    def deadline(self) -> Callable[[float], bool]:
        """A function that says whether a share of this part's time has passed, from now on."""
        begun = time.monotonic()
        return lambda share: time.monotonic() - begun > share * self.seconds
