"""A study: trainings and measurements by a plan, one line of results per cell, and tables.

A plan is a YAML file with `cells`, the plans of trainings by name, and `tables`. A plan of cells has:

- `recipe`: the recipe for `lebm fit -c`, and `settings`, its flags. In these FOLDER is the parent folder
  of the runs, and `<name>` the value of an axis;
- `axes`: values by name, whose product is the list of cells. A name is a flag, or `recipe`;
- `each`: a list of settings, if not every product is a cell;
- `cases`: axes whose values have their own recipe and settings;
- `evaluate`: the arguments of `lebm evaluate RUN`;
- `measure`: a function in the file `measures` of the plan, which measures a run; or `call`, one that needs no
  run. The file is run as `python FILE FUNCTION FOLDER SETTINGS DATA` and writes FOLDER/figures.json;
- `data`: a folder inside the data folder (default: the one of the plan); null for the data of the recipe.

A cell is a process with one thread. Its line in `results` (default: a file beside the plan) has its settings,
command, CPU minutes, versions, machine, and figures with intervals. Cells that have a line are skipped, and
an interrupted training is resumed.

A table has `columns`, title to [figure, format, filter], and `rows`, the first cells of a row and its filter.
A filter names the cell and values of its settings; `$name` gives the text for `{name}` in the figures of the
columns. Figures are the figures of the cells, and `seeds`, `steps`, `cpu_minutes` and `ms_per_step`. The
value of one cell has its 95% interval; a mean (or median: `over`) of several cells has the lowest and the
highest value. `spread: false` omits these. `machine: true` names the machines and the days below the table.
"""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from lebm.errors import UserError, tell
from lebm.run.folder import spent_minutes, stored_json

FLAGS = {
    "held_out_label": "data.init_args.held_out_label",
    "latents": "latent_dim",
    "lr_decay": "model.init_args.optimizer.lr_decay",
    "pull": "model.init_args.inference.init_args.prior_pull",
    "seed": "seed_everything",
    "sigma": "model.init_args.likelihood.init_args.sigma",
}
"""Short names of flags."""
NAMES = {flag: name for name, flag in FLAGS.items() if name != "seed"}
Cell = dict[str, Any]
CELLS = "recipe settings axes each cases evaluate measure call data"
TABLES = "head rows columns over spread machine note"


class Study:
    """A plan and its results.

    Args:
        plan: the YAML file.
        results: file of the results, one line of JSON per cell (default: the file that the plan names, or a
            file beside the plan).

    Raises:
        UserError: for a plan without `cells`, or with unknown keys.
    """

    def __init__(self, plan: Path, results: Path | None = None) -> None:
        self.place = plan
        self.plan: dict[str, Any] = yaml.safe_load(plan.read_text())
        if not isinstance(self.plan, dict) or not isinstance(self.plan.get("cells"), dict):
            raise UserError(
                f"{plan}: a plan needs a mapping `cells`; docs/evaluation.md#studies has an example"
            )
        for place, names, known in (
            (plan, self.plan, "cells tables figures measures results data"),
            *((f"{plan}: cells {name}", own, CELLS) for name, own in self.plan["cells"].items()),
            *((f"{plan}: table {name}", own, TABLES) for name, own in self.plan.get("tables", {}).items()),
        ):
            if unknown := sorted(set(names or {}) - set(known.split())):
                raise UserError(f"{place}: unknown key {unknown[0]!r}; the keys are {known}")
        named = self.plan.get("results", f"{self.place.stem}.jsonl")
        self.results = results or (self.place.parent / named).resolve()
        place = plan.resolve()
        self._name = f"studies/{place.name}" if place.parent.name == "studies" else place.name  # in commands

    def planned(self, only: Iterable[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and settings of each cell: `each`, times the product of its axes, cases first."""
        for name in only or ():
            if name not in self.plan["cells"]:
                raise UserError(f"{self.place}: no cells {name!r}; it has {', '.join(self.plan['cells'])}")
        for name, plan in self.plan["cells"].items():
            if only is None or name in only:
                axes = {axis: list(values) for axis, values in plan.get("cases", {}).items()}
                for own in plan.get("each", [{}]):
                    for settings in product(axes | plan.get("axes", {})):
                        yield name, own | settings

    def run(self, folder: Path, only: Iterable[str] | None = None, data: Path | None = None) -> list[str]:
        """Train and measure the cells without a line; return the names of failed cells."""
        failed, done = [], [(cell["cell"], cell["settings"]) for cell in read_cells(self.results)]
        for name, settings in self.planned(only):
            if (name, settings) in done:
                continue
            place = folder / "-".join([name, *map(str, settings.values())]).replace("/", "_")
            if not attempted(place, self._cell, name, settings, place, data):
                failed.append(place.name)
        return failed

    def _cell(self, name: str, settings: dict[str, Any], place: Path, data: Path | None) -> None:
        """Train and measure a cell, and write its line."""
        plan = self.plan["cells"][name]
        kind = plan.get("data", self.plan.get("data"))
        images = None if data is None or kind is None else str(data / kind)
        made = f"lebm study run {self._name} FOLDER --only {name}"
        fit: dict[str, Any] = {"started": datetime.now().isoformat(timespec="seconds")}
        if "call" not in plan:
            words = fit_words(plan, settings)
            made = shlex.join(["lebm", "fit", *words])
            words = [word.replace("FOLDER", str(place.parent)) for word in words]
            trained(place, words + (["--data.init_args.path", images] if images else []), threads=1)
            fit = stored_json(place, "summary.json")
        kept: dict[str, Any] = {}
        if "evaluate" in plan:
            command("-m", "lebm", "evaluate", str(place), *shlex.split(plan["evaluate"]), threads=1)
            evaluation = figures(stored_json(place, "evaluation.json"))
            kept = {key: [own[end] for end in ("value", "low", "high")] for key, own in evaluation.items()}
        if function := plan.get("measure") or plan.get("call"):
            if "measures" not in self.plan:
                raise UserError(f"{self.place}: the cells {name} need the key `measures`, a Python file")
            file = str(self.place.parent / self.plan["measures"])
            command(file, function, str(place), json.dumps(settings), images or "", threads=1)
            found = json.loads((place / "figures.json").read_text())
            fit |= found.get("fit", {})
            kept |= found["figures"]
        line = {
            "cell": name,
            "settings": settings,
            "command": made,
            "cpu_minutes": spent_minutes(fit),
            **{key: fit.get(key) for key in ("versions", "hardware", "started", "steps")},
            "figures": kept,
        }
        self.results.parent.mkdir(parents=True, exist_ok=True)
        with self.results.open("a") as results:
            results.write(json.dumps(line) + "\n")

    # Tables

    def table(self, title: str) -> str:
        """Return a table in Markdown with its note, its machines, and the command for its cells."""
        if title not in self.plan.get("tables", {}):
            known = ", ".join(self.plan.get("tables", {})) or "none"
            raise UserError(f"{self.place}: no table {title!r}; it has {known}")
        table = self.plan["tables"][title]
        rows, used = self._rows(table)
        machines = machine(*(cell for cell in used if cell["hardware"])) if table.get("machine") else ""
        plans = dict.fromkeys(cell["cell"] for cell in used if cell["cell"] in self.plan["cells"])
        own = f"lebm study run {self._name} FOLDER --only {','.join(plans)}"
        others = dict.fromkeys(cell["command"] for cell in used if "benchmarks." in cell["command"])
        notes = [table.get("note", ""), f"{machines}." if machines else ""]
        notes += [f"`{words}`." for words in [*([own] if plans else []), *others]]
        return grid([*table["head"], *table["columns"]], rows) + "\n\n" + " ".join(filter(None, notes))

    def _rows(self, table: dict[str, Any]) -> tuple[list[list[str]], list[Cell]]:
        """Return the rows of a table as text, and its cells."""
        over = {"mean": mean, "median": median}[table.get("over", "mean")]
        rows, used, ends = [], [], table.get("spread", True)
        measured: dict[str, list[str]] = {}
        for *labels, wanted in table["rows"]:
            wanted = dict(wanted)
            printed = wanted.pop("printed", {})
            other = wanted.pop("study", None)
            file = self.results if other is None else self.results.with_name(f"{other}.jsonl")
            own = [] if printed else fitting(read_cells(file), wanted)
            texts = {key[1:]: value for key, value in wanted.items() if key[0] == "$"}
            row = [str(printed.get(title, "")) for title in table["columns"]]
            for place, (figure, form, *narrower) in enumerate(table["columns"].values() if own else ()):
                chosen = fitting(own, narrower[0]) if narrower else own
                each = figure if isinstance(figure, list) else [figure]
                parts = [shown(chosen, one.format(**texts), form, over, ends) for one in each]
                row[place] = " / ".join(part for part in parts if part)
                measured.setdefault(str(figure), []).extend([row[place]] if chosen else [])
            if not own and not printed:
                row[0] = "not run"
            rows.append([*map(str, labels), *row])
            used += own
        if missing := [figure for figure, found in measured.items() if found and not any(found)]:
            names = ", ".join(sorted({name for cell in used for name in cell["figures"]}))
            raise UserError(f"{self.place}: no cell has the figure {missing[0]}; there are {names}")
        return rows, used


def read_cells(path: Path) -> list[Cell]:
    """Return the lines of a file of results; empty if the file does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fit_words(plan: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return the arguments of ``lebm fit`` for one cell."""
    chosen, own = dict(plan.get("settings", {})), dict(settings)
    recipe = own.pop("recipe", plan.get("recipe"))
    for axis, values in plan.get("cases", {}).items():
        case = values[own.pop(axis)] or {}
        recipe = case.get("recipe", recipe)
        chosen |= case.get("settings", {})
    words = ["-c", *shlex.split(str(recipe))]
    for key, value in (chosen | own).items():
        text = str(value) if isinstance(value, str | int) else json.dumps(value)
        words += [f"--{FLAGS.get(key, key)}", re.sub(r"<(\w+)>", lambda name: str(settings[name[1]]), text)]
    return words


def product(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of some axes."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def attempted(place: Path, do: Callable[..., None], *arguments: Any) -> bool:
    """Run a cell and return whether all commands succeeded; an interrupted command ends the study."""
    try:
        do(*arguments)
    except subprocess.CalledProcessError as error:
        if error.returncode in (130, 143, -2, -15):
            raise KeyboardInterrupt from error
        tell(f"lebm: {place}: failed, because a command ended with status {error.returncode}")
        return False
    return True


def trained(run: Path, words: Sequence[str], threads: int | None = None) -> bool:
    """Start or resume the training of a cell; return whether it was unfinished."""
    if stored_json(run, "summary.json").get("status") == "finished":
        return False
    command("-m", "lebm", "fit", *words, "--run_dir", str(run), "--resume", threads=threads)
    return True


def command(*words: str, threads: int | None = None) -> None:
    """Run Python in a new process, so a crash does not end the other cells."""
    tell(f"lebm: {shlex.join(words[1:] if words[0] == '-m' else words)}")
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *words], env={**os.environ, **limit}, check=True)


def fitting(cells: list[Cell], wanted: dict[str, Any]) -> list[Cell]:
    """Return the cells that match a filter."""
    filters = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    chosen = []
    for cell in cells:
        own = {"cell": cell["cell"]}
        own |= {NAMES.get(key, key): value for key, value in cell["settings"].items()}
        if all(own.get(key) in values for key, values in filters.items() if key[0] != "$"):
            chosen.append(cell)
    return chosen


def value_of(cell: Cell, figure: str) -> list[float | None]:
    """Return a figure of a cell with its ends."""
    if figure == "ms_per_step":
        return [60_000 * cell["cpu_minutes"] / cell["steps"], None, None]
    if figure in ("cpu_minutes", "steps"):
        return [cell.get(figure), None, None]
    return cell["figures"].get(figure, [None, None, None])


def shown(
    cells: list[Cell], figure: str, form: str, over: Callable[..., float] = mean, ends: bool = True
) -> str:
    """Return a figure of some cells as text, with its interval or its lowest and highest value."""
    if figure == "seeds":
        return str(len(cells))
    values = [value_of(cell, figure) for cell in cells]
    known = [value for value in values if value[0] is not None]
    numbers = [number for number, *_ in values if number is not None]
    if not numbers:
        return ""
    if not ends:
        return _number(form, over(numbers))
    if len(known) == 1 and known[0][1] is not None:
        value, low, high = (_number(form, end) for end in known[0])
        return f"{value} ({low} to {high})"
    centre, low, high = (form.format(number) for number in (over(numbers), min(numbers), max(numbers)))
    return centre if low == high else f"{centre} ({low} to {high})"


def _number(form: str, value: float | None) -> str:
    """Format a number without the sign of a zero."""
    text = form.format(value)
    return text.removeprefix("-") if not text.strip("-0.,%") else text


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(map(str, line))} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def machine(*records: dict[str, Any]) -> str:
    """Return each machine with its versions, first and last day, for the line below a table."""
    days: dict[str, list[str]] = {}
    for record in records:
        hardware, versions = record["hardware"], record["versions"]
        name = f"{hardware['cpu']}, {hardware['threads']} thread(s), torch {versions['torch']}, lebm"
        name += f" {versions['lebm']}"
        days.setdefault(name, []).append((record["started"] or "")[:10])
    spans = {name: dict.fromkeys(filter(None, (min(own), max(own)))) for name, own in days.items()}
    return "; ".join(", ".join(filter(None, [name, " to ".join(span)])) for name, span in spans.items())


def figures(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of all suites of an evaluation by name; the run's own test split comes first."""
    found = [entry for suite in evaluation["suites"].values() for entry in suite["figures"]]
    found.sort(key=lambda entry: entry.get("split") not in ("lebm", "test", None))
    named: dict[str, dict[str, Any]] = {}
    for entry in found:
        named.setdefault(entry["name"], entry)
    return named
