"""What the scripts that write results share: reading `results/`, tables, and the generated blocks of docs/.

A block stands between `<!-- NAME -->` and `<!-- end -->` on one page of docs/. A script that owns blocks has
`BLOCKS`, names to functions. Each function builds its block from the files in `results/` alone."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lebm.config import recipes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
Blocks = Mapping[str, Callable[[], str]]


def stored(name: str, otherwise: Any = None) -> Any:
    """What ``results/NAME.json`` holds; ``otherwise`` if it is given and there is no such file."""
    path = RESULTS / f"{name}.json"
    return otherwise if otherwise is not None and not path.exists() else json.loads(path.read_text())


def keep(name: str, figures: Any) -> None:
    """Write ``results/NAME.json``."""
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the script."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_or_write(doc: str | None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """A parser of the verbs ``run`` and ``write``, and that of ``run`` alone, which takes the arguments."""
    parser = arguments(doc)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("write")
    return parser, verbs.add_parser("run")


def opened(*recipes: str, folder: str, settings: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """The untrained model of recipes, and their data of a folder, ready for training and testing."""
    from lebm import from_recipe

    model, data = from_recipe(*recipes, settings={"data.init_args.path": folder, **(settings or {})})
    data.setup("fit")
    data.setup("test")
    return model, data


def half_width(values: Any) -> float:
    """Of the 95 % interval of the mean of a tensor of independent values."""
    return 1.96 * float(values.std()) / len(values) ** 0.5


def name_and_runs(doc: str | None) -> argparse.Namespace:
    """The name of a table, and the run folders that it is made from."""
    parser = arguments(doc)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    return parser.parse_args()


def finished(run: Path, *files: str) -> list[dict]:
    """Summaries of a run folder.

    Raises:
        SystemExit: if one of them says that it did not finish.
    """
    found = [json.loads((run / file).read_text()) for file in files]
    if any(summary["status"] != "finished" for summary in found):
        raise SystemExit(f"{run}: not finished")
    return found


def training(fit: dict, names: Iterable[str]) -> dict:
    """Facts of a run's summary, with its earlier attempts, whose time counts too."""
    return {name: fit[name] for name in names} | {"earlier_attempts": fit.get("earlier_attempts", [])}


def owners() -> dict[str, Path]:
    """Name of every generated block to its page."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    marker = re.compile(r"^<!-- (?!end )(\w+) -->$", re.M)
    return {name: page for page in pages for name in marker.findall(page.read_text())}


def publish(blocks: Blocks, check: bool = False) -> list[str]:
    """Write each block into its page, or only look at it; the names of those that differed.

    Raises:
        SystemExit: if no page has a place for a block.
    """
    pages, changed = owners(), []
    for name, build in blocks.items():
        if name not in pages:
            raise SystemExit(f"no page of docs/ has <!-- {name} -->")
        text = pages[name].read_text()
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, after = text.split(start, 1)
        filled = f"{before}{start}\n{build()}\n\n{end}{after.split(end, 1)[1]}"
        if filled != text:
            changed.append(name)
            if not check:
                pages[name].write_text(filled)
    return changed


def write_or_check(blocks: Blocks) -> None:
    """Write the blocks, or with ``--check`` refuse those that are not up to date.

    Raises:
        SystemExit: if one differs, or if no page has a place for it.
    """
    check = "--check" in sys.argv[1:]
    if not check:
        from_the_root()
    changed = publish(blocks, check)
    if check and changed:
        raise SystemExit(f"not up to date: {', '.join(changed)}; run: make results")
    print(f"{len(blocks)} blocks, {len(changed)} changed")


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, line))} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def machine(*records: dict) -> str:
    """Each machine with its versions, and the first and the last day, for the line below a table."""
    days: dict[str, list[str]] = {}
    for record in records:
        hardware, versions = record["hardware"], record["versions"]
        name = f"{hardware['cpu']}, {hardware['threads']} thread(s), torch {versions['torch']}, lebm"
        name += f" {versions['lebm']}"
        days.setdefault(name, []).append(record.get("date") or record["started"][:10])
    spans = {name: dict.fromkeys((min(own), max(own))) for name, own in days.items()}
    return "; ".join(f"{name}, {' to '.join(span)}" for name, span in spans.items())


def folded(commands: Iterable[str]) -> str:
    """Commands, each once, behind a line that opens them on a code host and on the site."""
    lines = "\n".join(f"    {command}" for command in dict.fromkeys(commands))
    return f"<details markdown>\n<summary>Commands</summary>\n\n{lines}\n\n</details>"


def cells(folder: str, recipe: str, argument: str) -> dict[str, dict]:
    """The finished cells of a sweep over an argument, by its value, from a folder of ``results/``."""
    files = sorted((RESULTS / folder).glob(f"{recipe.replace('/', '-')}-{argument}-*.json"))
    return {str(cell["value"]): cell for cell in (json.loads(file.read_text()) for file in files)}


def sweep(folder: str, plans: Mapping[str, Sequence[str]]) -> None:
    """Run ``lebm sweep`` for each method, on one thread; the files of the cells go to ``results/FOLDER``."""
    for method, words in plans.items():
        command = [sys.executable, "-m", "lebm", "sweep", *words, "--results", str(RESULTS / folder)]
        if subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode:
            print(f"{method}: not complete", file=sys.stderr)
    from_the_root()


def from_the_root() -> None:
    """Cells name the file of their recipe in full. Afterwards they name it from the root of the project."""
    for file in RESULTS.rglob("*.json"):
        text = file.read_text()
        if (portable := text.replace(f'"{recipes.folder()}/', '"recipes/')) != text:
            file.write_text(portable)


def figures(evaluation: dict) -> dict[str, dict]:
    """The values of all suites of an evaluation, by name. Those of the run's own test split come first."""
    found = [entry for suite in evaluation["suites"].values() for entry in suite["figures"]]
    foreign = [entry for entry in found if entry.get("split") not in ("lebm", "test", None)]
    named: dict[str, dict] = {}
    for entry in [*(entry for entry in found if entry not in foreign), *foreign]:
        named.setdefault(entry["name"], entry)
    return named


def reruns(runs: Iterable[tuple[dict, dict]]) -> str:
    """What trained and evaluated some runs, folded."""
    parts = [(fit, *(s["origin"] for s in evaluation["suites"].values())) for fit, evaluation in runs]
    return folded(part["command"] for run in parts for part in run)


def shown(figure: dict | None, form: str) -> str:
    """A value with its interval, and its median where it has one."""
    if figure is None:
        return "not run"
    if figure["value"] is None:
        return "not finite"
    value, low, high, median = (
        _number(form, end) if end is not None else ""
        for end in (figure["value"], figure["low"], figure["high"], figure["details"].get("median"))
    )
    return value + (f" ({low} to {high})" if low else "") + (f", median {median}" if median else "")


def _number(form: str, value: float) -> str:
    """Without the sign of a zero."""
    text = form.format(value)
    return text.removeprefix("-") if not float(text) else text


def spread(values: Sequence[float | None], form: str, middle: Callable[[list[float]], float]) -> str:
    """A middle of the known values, with the lowest and the highest where they differ."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    centre, low, high = (form.format(value) for value in (middle(known), known[0], known[-1]))
    return centre if low == high else f"{centre} ({low} to {high})"
