"""A study: train and measure the cells of studies/NAME.yaml, and write its tables into docs/.

    python scripts/study.py run NAME FOLDER [--only CELLS] [--data FOLDER]
    python scripts/study.py table NAME

`run` appends one line per cell to results/NAME.jsonl. A cell is a process of its own, with one thread. Cells
that have a line are skipped, and an interrupted training is resumed. FOLDER takes the run folders. The folder
of data has `mnist`, `cifar10` and `kjv`; without it, data come from where the recipe says.

A plan of `cells` has:

- `recipe`: what follows `lebm fit -c`, and `settings`, its flags. In these FOLDER is the folder of the runs,
  and `<name>` the value of an axis;
- `axes`: names to values, whose product are the cells. A name is a flag, or `recipe`;
- `each`: a list of settings, where not every product is a cell;
- `cases`: axes whose values have a recipe and settings of their own;
- `evaluate`: what follows `lebm evaluate RUN`, and `measure`, a function of scripts/measures.py that measures
  a run; or `call`, one that needs no run of lebm;
- `data`: a folder inside the folder of data, `mnist` if absent; null for data that come with lebm.

A table has `columns`, title to [figure, format, filter], and `rows`, the first cells of a row and its filter.
A filter names the cell and values of its settings; `$name` gives the text for `{name}` in the figures of the
columns instead. Figures are those of the cells, and `seeds`, `steps`, `cpu_minutes` and `ms_per_step`. The
value of one cell has its 95 % interval; a mean (or median: `over`) of several has the lowest and the highest.
`spread: false` leaves these out. `machine: true` names the machines and the days below the table."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from results_page import RESULTS, ROOT, figures, grid, machine, publish, spread

STUDIES = ROOT / "studies"
FLAGS = {
    "held_out_label": "data.init_args.held_out_label",
    "latents": "latent_dim",
    "lr_decay": "model.init_args.optimizer.lr_decay",
    "pull": "model.init_args.inference.init_args.prior_pull",
    "sigma": "model.init_args.likelihood.init_args.sigma",
}
"""Short names of flags."""
NAMES = {flag: name for name, flag in FLAGS.items()}
Cell = dict[str, Any]


def study(name: str) -> dict[str, Any]:
    """The content of studies/NAME.yaml."""
    return yaml.safe_load((STUDIES / f"{name}.yaml").read_text())


def stored_cells(name: str) -> list[Cell]:
    """The lines of results/NAME.jsonl."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def planned(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of each cell of a plan: `each`, times the product of its axes, cases first."""
    axes = {axis: list(values) for axis, values in plan.get("cases", {}).items()} | plan.get("axes", {})
    for own, *values in itertools.product(plan.get("each", [{}]), *axes.values()):
        yield own | dict(zip(axes, values, strict=True))


def flags(plan: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The words after ``lebm fit`` for one cell."""
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


def run(name: str, folder: Path, only: str | None, data: Path | None) -> None:
    """Train and measure the cells that have no line yet."""
    done = [(cell["cell"], cell["settings"]) for cell in stored_cells(name)]
    for plan_name, plan in study(name)["cells"].items():
        for settings in planned(plan) if only is None or plan_name in only.split(",") else ():
            if (plan_name, settings) not in done:
                place = folder / "-".join([plan_name, *map(str, settings.values())]).replace("/", "_")
                measured = cell(name, plan_name, plan, settings, place, data)
                with (RESULTS / f"{name}.jsonl").open("a") as file:
                    file.write(json.dumps(measured) + "\n")


def cell(
    name: str, plan_name: str, plan: dict[str, Any], settings: dict[str, Any], place: Path, data: Path | None
) -> Cell:
    """The line of one cell, after its training and its measurements."""
    kind = plan.get("data", "mnist")
    images = None if data is None or kind is None else str(data / kind)
    command = f"python scripts/study.py run {name} FOLDER --only {plan_name}"
    fit: dict[str, Any] = {"started": datetime.now().isoformat(timespec="seconds")}
    if "call" not in plan:
        words = ["lebm", "fit", *flags(plan, settings)]
        command = shlex.join(words)
        words = [word.replace("FOLDER", str(place.parent)) for word in words]
        words += ["--data.init_args.path", images] if images else []
        summary = place / "summary.json"
        if not summary.exists() or json.loads(summary.read_text())["status"] != "finished":
            resume = ["--resume"] if (place / "checkpoints").exists() else []
            process("-m", *words, "--run_dir", str(place), *resume)
        fit = json.loads(summary.read_text())
    kept: dict[str, Any] = {}
    if "evaluate" in plan:
        process("-m", "lebm", "evaluate", str(place), *shlex.split(plan["evaluate"]))
        evaluation = figures(json.loads((place / "evaluation.json").read_text()))
        kept = {key: [own[end] for end in ("value", "low", "high")] for key, own in evaluation.items()}
    if function := plan.get("measure") or plan.get("call"):
        given = [function, str(place), json.dumps(settings), images or ""]
        process(str(ROOT / "scripts" / "measures.py"), *given)
        found = json.loads((place / "figures.json").read_text())
        fit |= found.get("fit", {})
        kept |= found["figures"]
    seconds = fit.get("cpu_time_seconds")
    return {
        "cell": plan_name,
        "settings": settings,
        "command": command,
        "cpu_minutes": None if seconds is None else seconds / 60,
        **{key: fit.get(key) for key in ("versions", "hardware", "started", "steps")},
        "figures": kept,
    }


def process(*words: str) -> None:
    """Run Python on one thread; a failure ends the study, whose finished cells are stored."""
    subprocess.run([sys.executable, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def fitting(cells: list[Cell], wanted: dict[str, Any]) -> list[Cell]:
    """The cells that a filter leaves."""

    def fits(cell: Cell) -> bool:
        own = {"cell": cell["cell"]}
        own |= {NAMES.get(key, key): value for key, value in cell["settings"].items()}
        named = ((key, value) for key, value in wanted.items() if key[0] != "$")
        return all(
            own.get(key) in value if isinstance(value, list) else own.get(key) == value
            for key, value in named
        )

    return [cell for cell in cells if fits(cell)]


def value_of(cell: Cell, figure: str) -> list[float | None]:
    """A figure of a cell with its ends."""
    if figure == "ms_per_step":
        return [60_000 * cell["cpu_minutes"] / cell["steps"], None, None]
    if figure in ("cpu_minutes", "steps"):
        return [cell.get(figure), None, None]
    return cell["figures"].get(figure, [None, None, None])


def shown(
    cells: list[Cell], figure: str, form: str, over: Callable[..., float] = mean, ends: bool = True
) -> str:
    """A figure of some cells as text: with its interval, or with the lowest and the highest."""
    if figure == "seeds":
        return str(len(cells))
    values = [value_of(cell, figure) for cell in cells]
    known = [value for value in values if value[0] is not None]
    if not ends:
        return number(form, over(value[0] for value in known)) if known else ""
    if len(known) == 1 and known[0][1] is not None:
        value, low, high = (number(form, end) for end in known[0])
        return f"{value} ({low} to {high})"
    return spread([value[0] for value in known], form, over)


def number(form: str, value: float | None) -> str:
    """A number, without the sign of a zero."""
    text = form.format(value)
    return text.removeprefix("-") if not text.strip("-0.,%") else text


def body(name: str, table: dict[str, Any]) -> tuple[list[list[str]], list[Cell]]:
    """The rows of a table as text, and the cells in it."""
    over = {"mean": mean, "median": median}[table.get("over", "mean")]
    rows, used, ends = [], [], table.get("spread", True)
    for *labels, wanted in table["rows"]:
        wanted = dict(wanted)
        printed, cells = wanted.pop("printed", {}), stored_cells(wanted.pop("study", name))
        own = [] if printed else fitting(cells, wanted)
        texts = {key[1:]: value for key, value in wanted.items() if key[0] == "$"}
        row = [str(printed.get(title, "")) for title in table["columns"]]
        for place, (figure, form, *narrower) in enumerate(table["columns"].values() if own else ()):
            chosen = fitting(own, narrower[0]) if narrower else own
            each = figure if isinstance(figure, list) else [figure]
            parts = [shown(chosen, one.format(**texts), form, over, ends) for one in each]
            row[place] = " / ".join(part for part in parts if part)
        if not own and not printed:
            row[0] = "not run"
        rows.append([*map(str, labels), *row])
        used += own
    return rows, used


def block(name: str, title: str) -> str:
    """A table, and below it its note, its machines, and the command that makes its cells."""
    table = study(name)["tables"][title]
    rows, used = body(name, table)
    made = machine(*(cell for cell in used if cell["hardware"])) if table.get("machine") else ""
    plans = dict.fromkeys(cell["cell"] for cell in used if cell["cell"] in study(name)["cells"])
    commands = [f"python scripts/study.py run {name} FOLDER --only {','.join(plans)}"] if plans else []
    commands += dict.fromkeys(cell["command"] for cell in used if "benchmarks." in cell["command"])
    notes = [table.get("note", ""), f"{made}." if made else "", *(f"`{command}`." for command in commands)]
    return grid([*table["head"], *table["columns"]], rows) + "\n\n" + " ".join(filter(None, notes))


def blocks() -> dict[str, Callable[[], str]]:
    """The tables of every study that has some, by name."""
    names = sorted(path.stem for path in STUDIES.glob("*.yaml"))
    return {title: partial(block, name, title) for name in names for title in study(name).get("tables", {})}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("table").add_argument("name")
    runs = verbs.add_parser("run")
    runs.add_argument("name")
    runs.add_argument("folder", type=Path)
    runs.add_argument("--only", help="names of plans, with commas between them")
    runs.add_argument("--data", type=Path)
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen.name, chosen.folder, chosen.only, chosen.data)
    publish({title: partial(block, chosen.name, title) for title in study(chosen.name).get("tables", {})})


if __name__ == "__main__":
    main()
