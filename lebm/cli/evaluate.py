"""``lebm evaluate RUN...``: every metric of a trained run, with intervals, in one file and one table."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.attach import add_wandb, attach_evaluation, check_wandb
from lebm.cli.common import home, load_model, tell
from lebm.cli.data_path import check_data
from lebm.cli.features import extractor
from lebm.cli.flags import count, run_parser
from lebm.component import component_line
from lebm.errors import UserError, printable
from lebm.evaluation.names import SUITE_NAMES
from lebm.files import sha256
from lebm.run.folder import check_run, hardware, plain, versions, write_json

if TYPE_CHECKING:
    from lebm.data import TextData
    from lebm.evaluation.context import SentenceSubject, Settings, Subject

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """``lebm evaluate RUN_OR_CHECKPOINT...``"""
    chosen = _arguments().parse_args(argv)
    if chosen.out is not None and len(chosen.run) > 1:
        raise UserError("--out names one file; without it every run gets an evaluation.json of its own")
    for run in chosen.run:
        check_run(run)
    check_data(chosen.data, run=chosen.run[0])
    for data in chosen.ood:
        check_data(data, "--ood")
    check_wandb(chosen.run, chosen)
    for run in chosen.run:
        target = chosen.out or _home(run)
        if chosen.out is not None and target.exists() and not chosen.force:
            raise UserError(f"{target} exists; choose another --out or add --force")
        _evaluate(run, target, chosen, shlex.join(["lebm", "evaluate", *argv]))
        if chosen.wandb:
            attach_evaluation(run, target, chosen.wandb_host)
    return 0


def _arguments() -> argparse.ArgumentParser:
    description = "Measure trained runs: figures with intervals in evaluation.json, and a table."
    parser = run_parser("evaluate", description, several=True)
    parser.add_argument(
        "--data",
        help="look at other images than the run's own: Hub name, folder of parquet files or images,"
        " embedded:mnist",
    )
    parser.add_argument(
        "--suite",
        action="append",
        choices=(*SUITE_NAMES, "all"),
        help="what to measure, repeatable (default all)",
    )
    parser.add_argument(
        "--limit", type=count, help="use that many test images only, chosen by the run's seed"
    )
    parser.add_argument(
        "--n-samples", type=count, default=10_000, help="generated images of the image suite (default 10000)"
    )
    parser.add_argument(
        "--real-split",
        choices=("train", "test"),
        default="train",
        help="what they are compared with (default train)",
    )
    parser.add_argument(
        "--features",
        default="auto",
        help="digits, inception, pixels, random, a TorchScript file, or a class path",
    )
    parser.add_argument(
        "--inception-weights", metavar="FILE", help="local copy of the published Inception weights"
    )
    parser.add_argument(
        "--ood",
        action="append",
        default=[],
        metavar="DATA",
        help="a further out-set of the ood suite, repeatable",
    )
    parser.add_argument(
        "--ood-images", type=count, default=2000, help="images per set in the ood suite (default 2000)"
    )
    parser.add_argument(
        "--likelihood-images", type=count, default=32, help="test images of the likelihood suite (default 32)"
    )
    parser.add_argument(
        "--levels", type=count, default=100, help="of annealed importance sampling (default 100)"
    )
    parser.add_argument("--resamples", type=count, default=1000, help="of the bootstrap (default 1000)")
    parser.add_argument(
        "--sample-steps", type=count, help="length of the prior chain; the model's own if not given"
    )
    add_wandb(parser)
    parser.set_defaults(batch_size=250)
    return parser


def _home(run: Path) -> Path:
    return home(run) / ("evaluation.json" if run.is_dir() else f"{run.stem}.evaluation.json")


def _evaluate(run: Path, target: Path, chosen: argparse.Namespace, command: str) -> None:
    from lebm import checkpoint
    from lebm.evaluation.record import FORMAT, merged, read_evaluation
    from lebm.evaluation.run import SUITES, run_suites

    subject, settings = _subject(run, chosen)
    names = tuple(SUITES) if not chosen.suite or "all" in chosen.suite else tuple(dict.fromkeys(chosen.suite))
    file = checkpoint.find_checkpoint(run)
    content = {
        "lebm_evaluation": FORMAT,
        "run": str(run),
        "checkpoint": str(file),
        "checkpoint_sha256": sha256(file),
        "weights": chosen.weights,
        "loaded_weights": subject.model.loaded_weights,
        "method": type(subject.model).__name__,
        "seed": settings.seed,
        "suites": {},
    }
    kept = read_evaluation(target) if target.is_file() else None
    same = {"command": command, "versions": versions(), "hardware": hardware(), "data": subject.description}
    started = time.localtime()
    for name, result in run_suites(names, subject, settings):
        began = time.strftime("%Y-%m-%dT%H:%M:%S%z", started)
        result.origin = {**same, "started": began, "chains": subject.model.chain_settings}
        content["suites"][name] = plain(result.plain())
        write_json(target, merged(kept, content))  # at once: a suite that fails does not lose those before it
        started = time.localtime()
    _print_table(content, names)
    measured = sum(len(suite["figures"]) for suite in content["suites"].values())
    tell(f"lebm: {measured} figures of {run} in {target}")


def _subject(run: Path, chosen: argparse.Namespace) -> tuple[Subject | SentenceSubject, Settings]:
    from lebm.config.run_data import stored_settings
    from lebm.evaluation.context import SentenceSubject, Settings, Subject
    from lebm.evaluation.data import RunImages, observation_shape

    model = load_model(argparse.Namespace(**{**vars(chosen), "run": run})).eval()
    if chosen.seed is not None:
        model.seed = chosen.seed
    settings = Settings(
        seed=model.seed,
        batch_size=chosen.batch_size,
        n_samples=chosen.n_samples,
        real_split=chosen.real_split,
        resamples=chosen.resamples,
        ood=tuple(chosen.ood),
        ood_images=chosen.ood_images,
        likelihood_images=chosen.likelihood_images,
        levels=chosen.levels,
        steps=chosen.steps,
        sample_steps=chosen.sample_steps,
    )
    if model.sentences is not None:
        return SentenceSubject(model, _sentences(run, chosen)), settings
    shape = observation_shape(model)
    images = RunImages.open(stored_settings(run), chosen.data, shape, chosen.limit)
    return Subject(model, images), replace(settings, extractor=extractor(chosen, shape))


def _sentences(run: Path, chosen: argparse.Namespace) -> TextData:
    """The run's own sentences, or those of ``--data`` read the same way."""
    import inspect

    from lebm.config.run_data import stored_settings
    from lebm.data import TextData

    known = inspect.signature(TextData).parameters
    settings = {name: value for name, value in stored_settings(run).items() if name in known}
    settings["path"] = chosen.data or settings.get("path")
    settings["limit_eval"] = chosen.limit or settings.get("limit_eval")
    if settings["path"] is None:
        raise UserError(f"{run} does not say which sentences it was trained on; name some with --data")
    data = TextData(**settings)
    data.setup()
    return data


def _print_table(content: dict[str, Any], names: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lebm.evaluation.record import beside

    weights = content.get("loaded_weights", content["weights"])
    title = f"{content['method']}, {content['run']}, {weights} weights, seed {content['seed']}"
    table = Table(title=escape(printable(title)))
    for heading in ("suite", "figure", "split"):
        table.add_column(heading)
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    table.add_column("to compare with")
    told = []
    for name in names:
        suite = content["suites"][name]
        told.append(
            f"{name}: {_measured(suite)}" if suite["figures"] else f"{name}: not measured, {suite['skipped']}"
        )
        for figure in suite["figures"]:
            ends = "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
            value = "not finite" if figure["value"] is None else f"{figure['value']:.4g}"
            cells = (name, figure["name"], figure["split"], value, ends, f"{figure['n']:,}", beside(figure))
            table.add_row(*(escape(printable(cell)) for cell in cells))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    origin = content["suites"][names[-1]]["origin"]
    machine = origin["hardware"]
    devices = ", ".join([f"{machine['cpu']}, {machine['threads']} thread(s)", *machine["gpus"]])
    for line in (*told, f"samplers: {_samplers(origin['chains'])}", f"hardware: {devices}"):
        console.print(printable(line), highlight=False, markup=False)


def _measured(suite: dict[str, Any]) -> str:
    """A suite's protocol in one line."""
    protocol, features = suite["protocol"], ""
    if protocol.get("features"):
        features = f", features {protocol['features']['class_path'].rsplit('.', 1)[-1]}"
    digest = f" (SHA-256 {protocol['features_digest']})" if protocol.get("features_digest") else ""
    missing = f"; {suite['skipped']}" if suite["skipped"] else ""
    return f"{protocol['name']}{features}{digest}, {suite['wall_time_seconds']:.0f} s{missing}"


def _samplers(chains: dict[str, Any]) -> str:
    """Samplers with their steps, and what else a method says of its chains."""
    told = []
    for name, value in chains.items():
        if isinstance(value, dict) and "class_path" in value:
            arguments = value.get("init_args") or {}
            shown = {key: arguments[key] for key in ("steps", "step_size", "fresh_steps") if key in arguments}
            value = {**value, "init_args": shown}
        told.append(f"{name} {component_line(value)}")
    return "; ".join(told) or "none"
