"""Write the figures of sentences of two or more tested runs: results/NAME.json and the table of that name.

    python scripts/write_text_results.py kjv runs/latent_mle-kjv runs/latent_mle-kjv-gaussian
    python scripts/write_text_results.py --pairs kjv_attempts "word dropout 0.9"=runs/kjv-wd9,runs/...

A column a run, headed by its prior, a row a figure of its test.json, with 95% ends where it has any; nothing
is typed in. With `--pairs` a row a setting instead, of two runs that differ in nothing but the prior."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import mean

import yaml
from results_page import arguments, finished, folded, grid, keep, machine, publish, spread, stored

from lebm.run.folder import spent_minutes

PRIORS = {
    "normal": "N(0, I)",
    "energy": "energy, same generator",
    "mixture": "mixture of 10 Gaussians, same generator",
}
PULLS = {
    "divergence": ("KL of q from N(0, I), nats", "{:.1f}"),
    "latent_nats": ("worth of z, nats", "{:.1f}"),
    "nll": ("NLL of 100 test verses, nats", "{:.1f}"),
    "forward_perplexity": ("forward perplexity", "{:.1f}"),
    "reverse_perplexity": ("reverse perplexity", "{:.1f}"),
    "gain": ("log p(z) - log N(z; 0, I) of encodings, nats", "{:.2f}"),
}
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
TEST = ["versions", "hardware", "chains", "protocols", "data", "metrics", "started", "command"]
PAIRS = ("setting", "steps", "NLL, energy-based", "NLL, Gaussian", "gain", "worth of z, energy-based")
PAIRS += ("Gaussian", "log Z", "least ESS", "forward perplexity, energy-based", "Gaussian")
PAIRS += ("reverse perplexity, energy-based", "Gaussian")


def column(run: Path) -> dict:
    fit, test = finished(run, "summary.json", "test.json")
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    return {
        "run": run.name,
        "method": model["class_path"].rsplit(".", 1)[-1],
        "prior": model["init_args"]["prior"]["class_path"].rsplit(".", 1)[-1],
        "fit_command": fit["command"],
        "seed": fit["seed"],
        "steps": fit["steps"],
        "cpu_minutes": spent_minutes(fit),
        **{name: test[name] for name in TEST},
    }


def cell(metrics: dict, name: str) -> str:
    value = metrics.get(f"test/{name}")
    if value is None:
        return "not run"
    low, high = (metrics.get(f"test/{name}_{end}") for end in ("low", "high"))
    digits = 0 if name in ("active_units", "least_ess") else 2
    ends = "" if low is None or low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}" + ends


def below(columns: Iterable[dict]) -> list[str]:
    """The machine and the commands, that of the last attempt where there were several."""
    columns = list(columns)
    seed = f"seed {columns[0]['seed']}" + (" where no other is named" if len(columns) > 2 else "")
    told = f"{machine(*columns)}; {seed}; commands of the last attempt."
    return [told, folded(one["fit_command"] for one in columns)]


def table(name: str) -> str:
    columns = stored(name)
    head = [f"{one['method']}, {one['prior']}, {one['steps']:,} steps" for one in columns]
    rows = [[title, *(cell(one["metrics"], row) for one in columns)] for row, title in ROWS.items()]
    return "\n\n".join([grid(["what", *head], rows), *below(columns)])


def pairs_table(name: str) -> str:
    """NLL of both priors, their difference, whether the generator listens, and perplexities, per setting."""
    pairs, rows = stored(name), []
    for setting, pair in pairs.items():
        own, gaussian = (one["metrics"] for one in pair)
        gain = f"{gaussian['test/nll'] - own['test/nll']:+.2f}"
        values = [cell(own, "nll"), cell(gaussian, "nll"), gain]
        values += [cell(own, "latent_nats"), cell(gaussian, "latent_nats"), cell(own, "log_z")]
        least = f"{own['test/least_ess']:.0f}, {gaussian['test/least_ess']:.0f}"
        judged = [
            f"{metrics[f'test/{name}_perplexity']:.1f}"
            for name in ("forward", "reverse")
            for metrics in (own, gaussian)
        ]
        rows.append([setting, f"{pair[0]['steps']:,}", *values, least, *judged])
    return "\n\n".join([grid(PAIRS, rows), *below(one for pair in pairs.values() for one in pair)])


def pulls_table(name: str) -> str:
    """Each pull of the prior with N(0, I), and with an energy on the same encodings: means over seeds."""
    content, groups = stored(name), {}
    for row in content["rows"].values():
        groups.setdefault((row["pull"], row["prior"]), []).append(row)
    rows = []
    order = list(PRIORS)
    for (pull, prior), own in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        minutes = spread([row["cpu_time_seconds"] / 60 for row in own], "{:.0f}", mean)
        known = ([row["values"].get(key) for row in own] for key in PULLS)
        values = (spread(value, form, mean) for value, (_, form) in zip(known, PULLS.values(), strict=True))
        rows.append([pull, PRIORS[prior], len(own), minutes, *values])
    head = ["pull", "prior", "seeds", "CPU min", *(title for title, _ in PULLS.values())]
    real = "Means, with the lowest and the highest seed. Other training verses have a forward perplexity of"
    real += f" {content['real_perplexity']:.1f}. {machine(*content['rows'].values())}."
    return "\n\n".join([grid(head, rows), real, folded(["python scripts/text_priors.py run FOLDER"])])


BLOCKS = {
    "kjv": partial(table, "kjv"),
    "kjv_published": partial(table, "kjv_published"),
    "kjv_attempts": partial(pairs_table, "kjv_attempts"),
    "text_priors": partial(pulls_table, "text_priors"),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--pairs", action="store_true")
    options = parser.parse_args()
    if options.pairs:
        named = dict(word.rsplit("=", 1) for word in options.runs)
        keep(options.name, {k: [column(Path(run)) for run in runs.split(",")] for k, runs in named.items()})
    else:
        keep(options.name, [column(Path(run)) for run in options.runs])
    publish({options.name: partial(pairs_table if options.pairs else table, options.name)})


if __name__ == "__main__":
    main()
