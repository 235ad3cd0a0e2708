"""The settings that are not the same in all runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lebm.report.gather import RunRecord
from lebm.report.pieces import table

__all__ = ["recipe_differences"]


def recipe_differences(records: Sequence[RunRecord]) -> str:
    """Settings of the resolved recipes that are not the same in all runs.

    The parts of a list, such as callbacks, are compared by class: their order makes no difference.
    """
    flat = [dict(_flat(record.config)) for record in records]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    absent = '<td class="none">absent</td>'
    rows = []
    for key in keys:
        values = [settings.get(key, absent) for settings in flat]
        if any(value != values[0] for value in values):
            rows.append([f"<code>{escape(key)}</code>", *values])
    if not rows:
        return (
            "<p>The resolved recipes are the same.</p>"
            if len(records) > 1
            else "<p>One run has nothing to differ from.</p>"
        )
    return table(["setting", *(record.name for record in records)], rows)


def _flat(value: Any, where: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        seen: Counter[str] = Counter()
        for place, item in enumerate(value):
            name = str(item.get("class_path", "")).rpartition(".")[2]
            seen[name] += 1
            again = f" {seen[name]}" if seen[name] > 1 else ""
            yield from _flat(item, f"{where}[{name + again if name else place}]")
    else:
        yield where, f"<code>{escape(json.dumps(value, default=str))}</code>"
