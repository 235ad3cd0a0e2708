"""Tables of measurements that other programs wrote: `results/*.md` of benchmarks, and small records.

    python scripts/write_records.py

results/copied.json holds tables of runs whose folders no longer exist. They were copied from the output of
those runs."""

from __future__ import annotations

from functools import partial

from results_page import RESULTS, folded, grid, publish, stored

GAPS = {
    "runs/latent_mle-kjv-gaussian": "as in the recipe",
    "runs/kjv-wd9-gaussian": "word dropout 0.9",
    "runs/kjv-noiseless-gaussian": "no noise in the posterior chain",
}


def density_ratio() -> str:
    """As `python -m benchmarks.density_ratio` wrote it."""
    table, lines = (RESULTS / "density_ratio.md").read_text().strip().split("\n\n")
    costs = "\n".join(f"- {line.replace('a run', 'per run')}" for line in lines.splitlines())
    command = folded(["python -m benchmarks.density_ratio"])
    return "\n\n".join([table, costs, stored("density_ratio")["machine"], command])


def ablation(name: str, flags: str) -> str:
    """As `python -m benchmarks.dual_mcmc_ablation` wrote it."""
    told, table = (RESULTS / f"{name}.md").read_text().strip().split("\n\n")
    command = f"python -m benchmarks.dual_mcmc_ablation {flags} --out results/{name}.md"
    return "\n\n".join([table, told, folded([command])])


def gap() -> str:
    """How far encodings of verses are from N(0, I), by `benchmarks/prior_gap.py`."""
    rows = []
    for row in stored("kjv_gap"):
        told = [GAPS[row["run"]], f"{row['rows']:,}", f"{row['standard deviation']:.2f}"]
        nats = f"{row['kl']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        rows.append([*told, nats, f"{row['accuracy']:.3f}"])
    head = ["setting", "verses", "standard deviation of encodings", "nats from N(0, I)"]
    return grid([*head, "accuracy of the classifier"], rows)


def copied(name: str) -> str:
    """A table of results/copied.json."""
    content = stored("copied")[name]
    parts = [grid(content["head"], content["rows"])]
    parts += [folded(content["commands"])] if "commands" in content else []
    return "\n\n".join([*parts, content["below"]])


BLOCKS = {
    "density_ratio": density_ratio,
    "dual_mcmc_ablation": partial(ablation, "dual_mcmc_ablation", "--steps 300"),
    "dual_mcmc_numerals": partial(ablation, "dual_mcmc_numerals", "--steps 1000 --numerals"),
    "kjv_gap": gap,
    **{
        name: partial(copied, name)
        for name in ("layer_settings", "anomaly_settings", "cifar10_small", "stage_kernels", "dual_codes")
    },
}

if __name__ == "__main__":
    publish(BLOCKS)
