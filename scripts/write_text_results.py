"""Write the figures of sentences of two or more tested runs: results/NAME.json and the table of that name in
docs/results.md.

    python scripts/write_text_results.py kjv runs/latent_mle-kjv runs/latent_mle-kjv-gaussian python
    scripts/write_text_results.py --pairs kjv_attempts "word dropout 0.9"=runs/kjv-wd9,runs/kjv-wd9-gaussian
    ...

A column a run, headed by its prior, a row a figure of its test.json, with 95% ends where it has any; nothing
is typed in. With `--pairs` a row a setting instead, of two runs that differ in nothing but the prior."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from results_page import fill, keep, where

from lebm.run.folder import spent_minutes

ROWS = {
    "nll": "negative log-likelihood, nats per sentence",
    "perplexity": "perplexity per token",
    "log_z": "log Z of the prior",
    "least_ess": "least effective number of importance samples of a sentence",
    "forward_perplexity": "forward perplexity",
    "reverse_perplexity": "reverse perplexity",
    "distinct_1": "share of different words",
    "real_distinct_1": "... in real test sentences",
    "distinct_2": "share of different pairs of words",
    "real_distinct_2": "... in real test sentences",
    "self_bleu": "self-BLEU",
    "real_self_bleu": "... of real test sentences",
    "latent_nats": "what the latent is worth to the generator, nats",
    "active_units": "active coordinates",
    "posterior_mean_variance": "variance of posterior means",
}


def column(run: Path) -> dict:
    test = json.loads((run / "test.json").read_text())
    if test["status"] != "finished":
        raise SystemExit(f"{run}: its test did not finish")
    fit, config = (
        json.loads((run / "summary.json").read_text()),
        yaml.safe_load((run / "config.yaml").read_text()),
    )
    kept = ("versions", "hardware", "chains", "protocols", "data", "metrics", "started", "command")
    prior = config["model"]["init_args"]["prior"]["class_path"].rsplit(".", 1)[-1]
    own = {"run": run.name, "method": config["model"]["class_path"].rsplit(".", 1)[-1], "prior": prior}
    return {
        **own,
        "fit_command": fit["command"],
        "seed": fit["seed"],
        "steps": fit["steps"],
        "cpu_minutes": spent_minutes(fit),
        **{name: test[name] for name in kept},
    }


def cell(metrics: dict, name: str) -> str:
    value = metrics.get(f"test/{name}")
    if value is None:
        return "not run"
    low, high = (metrics.get(f"test/{name}_{end}") for end in ("low", "high"))
    digits = 0 if name in ("active_units", "least_ess") else 2
    return f"{value:.{digits}f}" + (
        "" if low is None or low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    )


def table(columns: list[dict]) -> str:
    lines = [
        "| | "
        + " | ".join(f"{one['method']}, {one['prior']}, {one['steps']:,} steps" for one in columns)
        + " |"
    ]
    lines.append("|---|" + "---|" * len(columns))
    lines += [
        f"| {title} | " + " | ".join(cell(one["metrics"], name) for one in columns) + " |"
        for name, title in ROWS.items()
    ]
    first = columns[0]
    machine = where(first["hardware"], first["versions"], first["started"][:10])
    commands = "\n".join(f"    {one['fit_command']}" for one in columns)
    return "\n".join(
        [*lines, "", f"{machine}; seed {first['seed']}; commands of the last attempt:", "", commands]
    )


def pairs_table(pairs: dict[str, tuple[dict, dict]]) -> str:
    """NLL of both priors, their difference, and whether the generator listens: a row a setting."""
    heads = [
        "setting",
        "steps",
        "NLL, energy-based",
        "NLL, Gaussian",
        "gain",
        "worth of z, energy-based",
        "Gaussian",
        "log Z",
        "least ESS",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---|" * (len(heads) - 1)]
    for setting, (own, gaussian) in pairs.items():
        gain = gaussian["metrics"]["test/nll"] - own["metrics"]["test/nll"]
        row = [setting, f"{own['steps']:,}"]
        row += [cell(own["metrics"], "nll"), cell(gaussian["metrics"], "nll"), f"{gain:+.2f}"]
        row += [
            cell(own["metrics"], "latent_nats"),
            cell(gaussian["metrics"], "latent_nats"),
            cell(own["metrics"], "log_z"),
        ]
        row += [f"{own['metrics']['test/least_ess']:.0f}, {gaussian['metrics']['test/least_ess']:.0f}"]
        lines.append("| " + " | ".join(row) + " |")
    first = next(iter(pairs.values()))[0]
    machine = where(first["hardware"], first["versions"], first["started"][:10])
    commands = "\n".join(
        dict.fromkeys(f"    {one['fit_command']}" for pair in pairs.values() for one in pair)
    )
    return "\n".join(
        [*lines, "", f"{machine}; seed {first['seed']}; commands of the last attempt:", "", commands]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--pairs", action="store_true")
    options = parser.parse_args()
    if options.pairs:
        named = {setting: runs.split(",") for setting, runs in (word.rsplit("=", 1) for word in options.runs)}
        pairs = {
            setting: (column(Path(own)), column(Path(gaussian))) for setting, (own, gaussian) in named.items()
        }
        keep(options.name, {setting: list(pair) for setting, pair in pairs.items()})
        fill(options.name, pairs_table(pairs))
        return
    columns = [column(Path(run)) for run in options.runs]
    keep(options.name, columns)
    fill(options.name, table(columns))


if __name__ == "__main__":
    main()
