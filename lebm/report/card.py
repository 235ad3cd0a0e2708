"""A model card: what a shared model is, where it comes from, what was measured, and what it is not for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lebm import checkpoint
from lebm.errors import UserError
from lebm.evaluation.record import read_evaluation
from lebm.files import sha256
from lebm.run.folder import spent_minutes, stored_json
from lebm.run.provenance import without_paths

__all__ = ["model_card"]

_ELSEWHERE = ("ood", "chains")  # of other data, or of chains: not for the head of the card
_RANKINGS = ("auroc", "auprc", "fpr_at_95")


class _Source(NamedTuple):
    name: str
    licence: str
    hub: str | None


_MNIST = _Source(
    "MNIST handwritten digits (Yann LeCun and Corinna Cortes)",
    "Creative Commons Attribution-ShareAlike 3.0, as stated at <http://yann.lecun.com/exdb/mnist/>",
    "ylecun/mnist",
)
_BIBLE = _Source(
    "the King James Version of the Bible (1611, in its standard spelling of 1769)",
    "in the public domain outside the United Kingdom",
    None,
)
_SOURCES = {"mnist": _MNIST, "verses": _BIBLE, "kjv": _BIBLE}


def model_card(file: Path, run: Path, name: str, licence: str | None = None) -> str:
    """The card of a model file, in Markdown with a head in the Hub's own schema.

    Nothing is measured here. The values are those of the run's ``evaluation.json``.

    Args:
        file: the model file.
        run: the run folder that it was exported from.
        name: how others open it, such as ``pretrained/latent_mle-mnist`` or ``hub:ada/digits``.
        licence: identifier of the licence of the weights, such as ``apache-2.0``; left open if ``None``.

    Raises:
        UserError: if the run was evaluated with other weights than the file holds, or a file is damaged.
    """
    content = checkpoint.read(file)
    facts = content["facts"]
    summary = stored_json(run, "summary.json")
    evaluation = _evaluation(run, facts)
    path = str((facts.get("data") or {}).get("path") or "")
    source = _SOURCES.get(path.replace(":", "/").rpartition("/")[2].lower())
    method = str(content["hyper_parameters"]["class_path"]).rpartition(".")[2]
    weights = sum(value.numel() for value in content["state_dict"].values() if hasattr(value, "numel"))
    kind = (facts.get("observations") or {}).get("kind", "rows")
    about = {
        "method": f"`lebm.estimators.{method}`",
        "data": f"{source.name if source else path or 'not recorded'}{_splits(facts.get('data'))}",
        "licence of the data": source.licence if source else "not recorded",
        "recipe": f"`{facts['recipe']}`" if facts.get("recipe") else None,
        "command": f"`{facts['command']}`" if facts.get("command") else None,
        "seed": facts.get("seed"),
        "optimiser steps": facts.get("steps"),
        "time and machine": _machine(summary),
        "weights": f"{weights:,}, {facts.get('weights')}, stored as {facts.get('dtype')}",
        "licence of the weights": licence,
        "versions": ", ".join(f"{key} {facts[key]}" for key in ("lebm", "torch") if facts.get(key)),
        "SHA-256 of the file": f"`{sha256(file)}`",
        "SHA-256 of the resolved recipe": f"`{facts.get('recipe_sha256')}`",
        "SHA-256 of the checkpoint": f"`{facts.get('checkpoint_sha256')}`",
    }
    short = name.rpartition("/")[2].partition("@")[0]
    lines = [
        "---",
        yaml.safe_dump(_head(short, method, kind, source, licence, evaluation), sort_keys=False).rstrip(),
        "---",
        "",
        f"# {short}",
        "",
        f"{method}, {kind}, trained on {source.name if source else path or 'data that are not recorded'}.",
        "",
        "```sh",
        f"lebm sample {name} -n 64",
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in about.items() if value not in (None, "")),
        "",
        "## Values",
        "",
        *_values(evaluation, facts),
        "",
        "## Not for",
        "",
        *(f"* {sentence}" for sentence in _limits(kind)),
    ]
    return "\n".join(lines) + "\n"


def _evaluation(run: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    file = run / "evaluation.json"
    if not file.is_file():
        return None
    found = read_evaluation(file)
    if found["checkpoint_sha256"] != facts.get("checkpoint_sha256"):
        raise UserError(f"{file}: measured on another checkpoint of the run; lebm evaluate {run} again")
    if found.get("loaded_weights", facts["weights"]) != facts["weights"]:
        raise UserError(f"{file}: measured with the {found['loaded_weights']} weights, not these")
    return found


def _splits(data: Any) -> str:
    sizes = data.get("sizes") if isinstance(data, Mapping) else None
    held = data.get("held_out_label") if isinstance(data, Mapping) else None
    counts = ", ".join(f"{rows:,} {split}" for split, rows in sizes.items()) if sizes else ""
    without = f"; label {held} is held out of training" if held is not None else ""
    return f" ({counts} rows{without})" if counts else ""


def _machine(summary: Mapping[str, Any]) -> str | None:
    hardware = summary.get("hardware")
    cpu, wall = (spent_minutes(dict(summary), which) for which in ("cpu", "wall"))
    if not hardware or wall is None or cpu is None:
        return None
    devices = ", ".join([str(hardware.get("cpu")), *hardware.get("gpus", [])])
    return (
        f"{cpu:.1f} CPU minutes ({wall:.1f} of wall time) on {devices}, {hardware.get('threads')} thread(s)"
    )


def _figures(evaluation: Mapping[str, Any] | None) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each figure with its suite; of the rankings, only those by the method's own score."""
    for suite, result in (evaluation or {"suites": {}})["suites"].items():
        for figure in result["figures"]:
            ranking, _, score = figure["name"].partition("/")
            if figure["value"] is not None and (ranking not in _RANKINGS or score == "anomaly_score"):
                yield suite, figure


def _values(evaluation: dict[str, Any] | None, facts: Mapping[str, Any]) -> list[str]:
    if evaluation is None:
        return ["Nothing was measured."]
    rounded = " This file holds them rounded to half precision." if facts.get("dtype") == "float16" else ""
    lines = [
        f"Measured by `lebm evaluate` with the single-precision weights of the checkpoint.{rounded}",
        "The intervals have a level of 95 % and do not contain the variation between trainings.",
        "",
        "| suite | value | | 95 % interval | n | split |",
        "|---|---|---|---|---|---|",
    ]
    for suite, figure in _figures(evaluation):
        ends = "none" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
        cells = (suite, f"`{figure['name']}`", f"{figure['value']:.4g}", ends, f"{figure['n']:,}")
        lines.append(f"| {' | '.join(cells)} | {_cell(figure['split'])} |")
    suites = [result for result in evaluation["suites"].values() if result["figures"]]
    commands = {without_paths(result["origin"].get("command")) for result in suites}
    findings = [
        f"`{suite}`: {_cell(sentence)}"
        for suite, result in evaluation["suites"].items()
        for told in (result["protocol"].get("findings") or {}).values()
        for sentence in told
    ]
    return [
        *lines,
        "",
        *(f"Finding of {finding}." for finding in findings),
        *([""] if findings else []),
        *(f"Command: `{command}`." for command in sorted(filter(None, commands))),
    ]


def _limits(kind: str) -> list[str]:
    special = {
        "sentences": "It is no source of quotations or facts. Its sentences imitate a style.",
        "images": "It is not for recognising what an image shows, and not for decisions about people.",
    }
    return [
        "It is not for use in a product. It is an example: for learning, for tests of code, and as a point of"
        " comparison.",
        "It is not for anomalies in data of another kind. For those, train a model on them and choose a"
        " threshold on validation data.",
        *([special[kind]] if kind in special else []),
        "It is no evidence that one method is better than another. It is one training with one seed.",
    ]


def _head(
    name: str,
    method: str,
    kind: str,
    source: _Source | None,
    licence: str | None,
    evaluation: dict[str, Any] | None,
) -> dict[str, Any]:
    """The head of the card, as the Hub reads it."""
    task = {"images": "unconditional-image-generation", "sentences": "text-generation"}.get(kind, "other")
    head: dict[str, Any] = {"library_name": "lebm"}
    if licence:
        head["license"] = licence
    if source and source.hub:
        head["datasets"] = [source.hub]
    head["tags"] = ["energy-based-model", "latent-variable-model", method]
    if task != "other":
        head["pipeline_tag"] = task
    results: dict[str, dict[str, Any]] = {}
    for suite, figure in _figures(evaluation):
        if suite in _ELSEWHERE:
            continue
        split = str(figure["split"])
        dataset = {
            "type": (source.hub if source else None) or "other",
            "name": source.name if source else "data of the run",
            "split": split,
        }
        entry = {"task": {"type": task}, "dataset": dataset, "metrics": []}
        args = {key: figure[key] for key in ("low", "high", "level", "n") if figure[key] is not None}
        results.setdefault(split, entry)["metrics"].append(
            {"type": figure["name"], "name": figure["name"], "value": figure["value"], "args": args}
        )
    if results:
        head["model-index"] = [{"name": name, "results": list(results.values())}]
    return head


def _cell(value: Any) -> str:
    """A value in a cell of a table."""
    return " ".join(str(value).replace("|", "\\|").split())
