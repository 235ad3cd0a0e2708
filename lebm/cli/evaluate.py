"""``lebm evaluate``: every metric of runs with its interval; ``lebm report``: a page that compares runs."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm import hub
from lebm.cli.common import Opened, VerbParser, beside, count, free, run_parser
from lebm.config.request import check_data
from lebm.errors import UserError, printable, tell
from lebm.evaluation.settings import SUITE_NAMES, Settings, check_suite
from lebm.files import sha256
from lebm.run.folder import hardware, plain, versions, write_json

if TYPE_CHECKING:
    from lebm.metrics.features import FeatureExtractor

FEATURES = {
    "digits": "lebm.metrics.DigitFeatures",
    "inception": "lebm.metrics.InceptionFeatures",
    "pixels": "lebm.metrics.FlatFeatures",
}


def evaluate(argv: list[str]) -> None:
    """Run ``lebm evaluate RUN...``."""
    description = "Measure trained models; write figures with intervals to evaluation.json and a table."
    out = "output file (default: evaluation.json in the run folder, which is updated)"
    parser = run_parser("evaluate", description, several=True, split=None, out=out, kind="posterior ")
    own = "or your own MODULE.FUNCTION with --trust MODULE (default: all)"
    suite = f"suite to measure, repeatable: {', '.join(SUITE_NAMES)}, {own}"
    parser.flag("--suite", suite, action="append", metavar="SUITE")
    parser.flag("--limit", "largest number of test rows, chosen by the seed (default: all)", type=count)
    features = f"feature network: {', '.join(FEATURES)}, or a class path (default: by image size)"
    parser.flag("--features", features, default="auto")
    parser.flag("--inception-weights", "local copy of the published Inception weights", metavar="FILE")
    for option in fields(Settings):
        if option.metadata:
            kind: dict[str, Any] = {"type": count} if "int" in str(option.type) else {}
            name = f"--{option.name.replace('_', '-')}"
            default = list(option.default) if isinstance(option.default, tuple) else option.default
            parser.add_argument(name, default=default, **kind, **option.metadata)
    parser.set_defaults(batch_size=Settings.batch_size)
    chosen = parser.parse_args(argv)
    if chosen.out is not None:
        if len(chosen.run) > 1:
            raise UserError("--out names one file for several runs; leave it out for one file per run folder")
        free(chosen.out, chosen.force)
    for run in chosen.run:
        hub.located(run, download=False)
    check_data(chosen.data)
    for data in chosen.ood:
        check_data(data, "--ood")
    for suite in chosen.suite or ():
        check_suite(suite)
    for run in chosen.run:
        target = chosen.out or beside(run, "evaluation.json")
        _evaluate(run, target, chosen, shlex.join(["lebm", "evaluate", *argv]))


def _evaluate(run: Path, target: Path, chosen: argparse.Namespace, command: str) -> None:
    from lebm import checkpoint
    from lebm.data import TextData
    from lebm.evaluation.context import SentenceSubject, Subject
    from lebm.evaluation.data import RunImages
    from lebm.evaluation.record import FORMAT, merged, read_evaluation
    from lebm.evaluation.run import SUITES, find_suite, run_suites

    names = tuple(SUITES) if not chosen.suite or "all" in chosen.suite else tuple(dict.fromkeys(chosen.suite))
    for name in names:
        find_suite(name, chosen.trust)
    opened = Opened(argparse.Namespace(**{**vars(chosen), "run": run}))
    model, data = opened.model, opened.data(chosen.data, chosen.limit)
    model.seed = opened.chosen.seed
    given = {name: value for name, value in vars(chosen).items() if name in Settings.__dataclass_fields__}
    settings = Settings(**{**given, "ood": tuple(chosen.ood), "seed": model.seed})
    subject: Subject | SentenceSubject
    if isinstance(data, TextData):
        data.setup()
        subject = SentenceSubject(model, data)
    else:
        images = RunImages.of(data)
        settings = replace(settings, extractor=_extractor(chosen, images.test.image_shape))
        subject = Subject(model, images)
    file = checkpoint.find_checkpoint(run)
    content = {
        "lebm_evaluation": FORMAT,
        "run": str(run),
        "checkpoint": str(file),
        "checkpoint_sha256": sha256(file),
        "weights": chosen.weights,
        "loaded_weights": model.loaded_weights,
        "method": type(model).__name__,
        "seed": settings.seed,
        "suites": {},
    }
    kept = read_evaluation(target) if target.is_file() else None
    same = {"command": command, "versions": versions(), "hardware": hardware(), "data": data.describe_split()}
    tell(f"lebm: suites {', '.join(names)}")
    started = time.localtime()
    for name, result in run_suites(names, subject, settings, chosen.trust):
        began = time.strftime("%Y-%m-%dT%H:%M:%S%z", started)
        result.origin = {**same, "started": began, "chains": model.chain_settings}
        content["suites"][name] = plain(asdict(result))
        write_json(target, merged(kept, content))  # after every suite, so a failing one loses no results
        started = time.localtime()
        tell(f"lebm: {name}: {_measured(content['suites'][name])}")
    _print_table(content, names)
    measured = sum(len(suite["figures"]) for suite in content["suites"].values())
    tell(f"lebm: {measured} figures of {run} in {target}; next: lebm report {run}")


def _extractor(chosen: argparse.Namespace, shape: tuple[int, ...]) -> FeatureExtractor:
    """Return the network of ``--features``; ``auto`` chooses the digit network for small grey images."""
    from lebm.checkpoint.rebuild import build
    from lebm.metrics.features import FeatureExtractor

    name = chosen.features
    if name == "auto":
        small = shape[0] == 1 and max(shape) <= 32
        name = "digits" if small and not chosen.inception_weights else "inception"
    arguments = {"weights_path": chosen.inception_weights} if name == "inception" else {}
    description = {"class_path": FEATURES.get(name, name), "init_args": arguments}
    return build(description, FeatureExtractor, chosen.trust, "--features")


def _print_table(content: dict[str, Any], names: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from lebm.evaluation.record import beside

    weights = content.get("loaded_weights", content["weights"])
    title = f"{content['method']}, {content['run']}, {weights} weights, seed {content['seed']}"
    table = Table("suite", Column("figure", no_wrap=True), "split", title=escape(printable(title)))
    for heading in ("value", "95% interval", "n"):
        table.add_column(heading, justify="right")
    rows = []
    for name in names:
        for figure in content["suites"][name]["figures"]:
            ends = "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
            value = "not finite" if figure["value"] is None else f"{figure['value']:.4g}"
            own = (name, figure["name"], figure["split"], value, ends, f"{figure['n']:,}", beside(figure))
            rows.append([escape(printable(cell)) for cell in own])
    if any(row[-1] for row in rows):
        table.add_column("to compare with")
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)


def _measured(suite: dict[str, Any]) -> str:
    """Return the protocol of a suite in one line, or the reason why it was skipped."""
    if not suite["figures"]:
        return f"not measured, {suite['skipped']}"
    protocol, features = suite["protocol"], ""
    if protocol.get("features"):
        features = f", features {protocol['features']['class_path'].rsplit('.', 1)[-1]}"
    missing = f"; {suite['skipped']}" if suite["skipped"] else ""
    return f"{protocol['name']}{features}, {suite['wall_time_seconds']:.0f} s{missing}"


def report(argv: list[str]) -> None:
    """Run ``lebm report RUN... [--out FILE]``."""
    parser = VerbParser("report", "Write one self-contained HTML page that compares runs.")
    runs = "run folders; lebm evaluate RUN adds figures and curves"
    parser.add_argument("run", type=Path, nargs="+", help=runs)
    parser.flag("--out", "output file", type=Path, default=Path("report.html"))
    parser.flag("--force", "replace --out if it exists", action="store_true")
    chosen = parser.parse_args(argv)
    free(chosen.out, chosen.force)
    if missing := [run for run in chosen.run if not run.exists()]:
        raise UserError(f"{missing[0]}: no such run folder")
    from lebm.report.page import report as write

    size = write(chosen.run, chosen.out)
    tell(f"lebm: {len(chosen.run)} run(s) in {chosen.out}, {size / 2**20:.1f} MB")
