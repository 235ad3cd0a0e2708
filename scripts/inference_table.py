"""Kinds of inference and prior chains at equal CPU time on MNIST: train the cells, then write the table.

    python scripts/inference_table.py run FOLDER --minutes 3 --seeds 0,1,2    # done cells are skipped
    python scripts/inference_table.py write

One thread: set OMP_NUM_THREADS=1. A cell ends after a number of CPU minutes, which measurements do not count
in. All learning rates fall by a cosine to a tenth over that time, in every cell. Everything is measured once,
at the end, from the last weights."""

from __future__ import annotations

import argparse
import json
import math
import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from results_page import ROOT, fill

from lebm import load
from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request
from lebm.metrics import DigitFeatures, frechet_distance, neighbour_rows
from lebm.samplers import Noise

RESULTS = ROOT / "results" / "inference"
ROWS = {
    "short_run": ("inference/short_run", None),
    "short_run+pool": ("inference/short_run", "prior/persistent"),
    "remembered": ("inference/remembered", None),
    "remembered+pool": ("inference/remembered", "prior/persistent"),
    "taught": ("inference/taught", None),
    "taught+pool": ("inference/taught", "prior/persistent"),
    "variational": ("inference/variational", None),
    "variational+pool": ("inference/variational", "prior/persistent"),
}
RECIPES = {"latent_mle": "latent_mle/mnist_published", "multistage_nce": "multistage_nce/mnist_published"}
DRAWS, REAL, TEST = 5_000, 20_000, 2_000
LOOKS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)


class Clock(Callback):
    """Ends training after CPU seconds, lets the rates fall with them, and looks at the model in between."""

    def __init__(self, seconds: float, look: Any) -> None:
        self.seconds, self.look, self.spent, self.curve = seconds, look, 0.0, []
        self.due = [60 * minutes for minutes in LOOKS if 60 * minutes < seconds]

    def on_train_start(self, trainer: Trainer, model: Any) -> None:
        self.rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, model: Any, *rest: Any) -> None:
        spent = self.spent + time.process_time() - self.begun
        share = min(1.0, spent / self.seconds)
        for group, rate in zip(trainer.optimizers[0].param_groups, self.rates, strict=True):
            group["lr"] = rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
        if self.due and spent >= self.due[0]:
            self.spent = spent
            self.curve.append(
                {"minutes": self.due.pop(0) / 60, "step": trainer.global_step, **self.look(model)}
            )
            self.begun = time.process_time()
        trainer.should_stop = trainer.should_stop or share >= 1


class Scale:
    """Frechet distance in the shipped digit features, from draws to training images."""

    def __init__(self, data: Any) -> None:
        self.features = DigitFeatures()
        self.features.prepare()
        self.features.eval()
        self.real = self.of(_images(data.train, range(REAL)))
        self.floor = self.distance(self.of(_images(data.train, range(REAL, REAL + DRAWS))))

    def of(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([self.features(part) for part in x.split(500)]).double()

    def distance(self, fake: torch.Tensor) -> float:
        return float(frechet_distance(fake.mean(0), fake.T.cov(), self.real.mean(0), self.real.T.cov()))


def _images(rows: Any, which: range) -> torch.Tensor:
    x = rows.__getitems__(list(which))["x"]
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def draws(model: Any, n: int, steps: int) -> torch.Tensor:
    parts = [
        model.sample(500, steps=steps, generator=Noise.samples(7, "sample", index=range(i, i + 500)))
        for i in range(0, n, 500)
    ]
    return torch.cat(parts)


def look(scale: Scale, x: torch.Tensor) -> Any:
    """A quick look: the distance of fewer draws by 60 steps, and how far posterior draws are spread."""

    def measure(model: Any) -> dict[str, float]:
        model.eval()
        distance = scale.distance(scale.of(draws(model, 2_000, 60)))
        z = model.encode(x[:500], generator=Noise.samples(7, "encode", index=range(500)))
        prior = model.sample_latent(500, steps=60, generator=Noise.samples(7, "prior", index=range(500)))
        with torch.no_grad():
            gap = float(model.prior.energy(z).mean() - model.prior.energy(prior).mean())
        model.train()
        return {"distance": distance, "spread": _spread(z), "prior_spread": _spread(prior), "energy_gap": gap}

    return measure


def _spread(z: torch.Tensor) -> float:
    return float(z.square().mean().sqrt())


def measures(model: Any, scale: Scale, x: torch.Tensor) -> dict[str, float]:
    model.eval()
    out: dict[str, float] = {}
    for steps in (60, 1000):
        fake = scale.of(draws(model, DRAWS, steps))
        out[f"distance_{steps}"] = scale.distance(fake)
    near = neighbour_rows(scale.real[:DRAWS].float(), fake.float())
    out |= {name: float(near[name].mean()) for name in ("precision", "recall")}
    if hasattr(model.prior_sampler, "pooled"):
        noise = Noise([(7, "pool")])
        pool = torch.cat(
            [model.decode(model.pool_latents(500, generator=noise)) for _ in range(DRAWS // 500)]
        )
        out["distance_pool"] = scale.distance(scale.of(pool))
    kind = type(model.inference).__name__
    steps = {"Variational": 0, "Taught": 20}.get(kind, 500)
    z = torch.cat(
        [
            model.encode(
                part, steps=steps, generator=Noise.samples(7, "encode", index=range(i * 500, i * 500 + 500))
            )
            for i, part in enumerate(x.split(500))
        ]
    )
    out["mse"] = float((model.decode(z) - x).square().mean())
    out["spread"] = _spread(z)
    return out


def cell(folder: str, method: str, row: str, minutes: float, seed: int) -> None:
    target = RESULTS / f"{method}-{row}-{minutes:g}-{seed}.json"
    if target.exists():
        return
    words = ["-c", RECIPES[method], *(word for name in ROWS[row] if name for word in ("-c", name))]
    if method == "multistage_nce":
        steps = {"short_run": 300, "variational+pool": 1_500}.get(row, 800) * minutes / 3
        words += ["--model.init_args.stages.init_args.steps", str(int(steps))]
        words += ["--model.init_args.optimizer.init_args.lr.energy", "1e-3"]
    words += ["--data.init_args.path", folder, "--seed_everything", str(seed)]
    cli = RecipeCLI(read_request("fit", words), trainer_too=False)
    model, data = cli.model, cli.datamodule
    data.setup("fit")
    data.setup("test")
    scale, x = Scale(data), _images(data.test, range(TEST))
    clock = Clock(60 * minutes, look(scale, x))
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    run = ROOT / "runs" / "inference" / f"{target.stem}.ckpt"
    run.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(run)
    record = {
        "command": f"python scripts/inference_table.py run FOLDER --minutes {minutes:g} --seeds {seed}"
        f" --method {method} --rows {row}",
        "overlays": [name for name in ROWS[row] if name],
        "steps": trainer.global_step,
        "minutes": minutes,
        "seed": seed,
        "floor": scale.floor,
        "curve": clock.curve,
        "figures": measures(load(run), scale, x),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, record["steps"], {k: round(v, 3) for k, v in record["figures"].items()}, flush=True)


TITLES = {
    "short_run": "20 steps from N(0, I), as published",
    "remembered": "5 steps from where the row's chain ended",
    "taught": "5 steps from an encoder that learns the ends",
    "variational": "a draw of a variational encoder",
}
COLUMNS = {
    "mse": "{:.3f}",
    "distance_60": "{:.0f}",
    "distance_1000": "{:.0f}",
    "distance_pool": "{:.0f}",
    "precision": "{:.2f}",
    "recall": "{:.2f}",
    "spread": "{:.1f}",
}


def table() -> str:
    """One line per row and time: the median over seeds, with the lowest and the highest."""
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for file in sorted(RESULTS.glob("latent_mle-*.json")):
        row = file.stem.removeprefix("latent_mle-").rsplit("-", 2)[0]
        record = json.loads(file.read_text())
        found.setdefault((record["minutes"], row), []).append(record)
    lines = [
        "| CPU min | latents of data in training | prior chain in training | seeds | steps | MSE | distance,"
        " 60 steps | 1,000 steps | of the pool | precision | recall | spread |",
        "|" + "---|" * 12,
    ]
    for minutes, row in sorted(found, key=lambda key: (key[0], list(ROWS).index(key[1]))):
        records = found[minutes, row]
        kind, _, pool = row.partition("+")
        cells = [_range([r["figures"].get(name) for r in records], form) for name, form in COLUMNS.items()]
        steps = round(median(r["steps"] for r in records))
        prior = "10 steps of a pool" if pool else "60 fresh steps"
        lines.append(
            f"| {minutes:g} | {TITLES[kind]} | {prior} | {len(records)} | {steps:,} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _range(values: list[float | None], form: str) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    middle, low, high = (form.format(v) for v in (median(known), known[0], known[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def sooner() -> str:
    """When the curves of the other rows pass what the published algorithm has at the end of its time."""
    lines = [
        "| CPU min of the published row | seed | its distance | row | reached after | times sooner |",
        "|" + "---|" * 6,
    ]
    for file in sorted(RESULTS.glob("latent_mle-short_run-*.json")):
        theirs = json.loads(file.read_text())
        goal = theirs["figures"]["distance_60"]
        for row in ("taught+pool", "variational+pool"):
            other = RESULTS / f"latent_mle-{row}-{theirs['minutes']:g}-{theirs['seed']}.json"
            if not other.exists():
                continue
            curve = json.loads(other.read_text())["curve"]
            first = next((look["minutes"] for look in curve if look["distance"] <= goal), None)
            ratio = f"{theirs['minutes'] / first:.0f}" if first else ""
            cells = [f"{theirs['minutes']:g}", theirs["seed"], f"{goal:.0f}", row, first or "never", ratio]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def curves() -> str:
    """What the looks in between saw in the cells of ten minutes."""
    lines = [
        "| row | seed | CPU min | distance, 60 steps | spread of data latents | of the prior | energy gap |",
        "|" + "---|" * 7,
    ]
    for row in ("short_run", "variational+pool"):
        for file in sorted(RESULTS.glob(f"latent_mle-{row}-10-*.json")):
            record = json.loads(file.read_text())
            for look in record["curve"]:
                cells = [f"{look['minutes']:g}", f"{look['distance']:.0f}", f"{look['spread']:.2f}"]
                cells += [f"{look['prior_spread']:.2f}", f"{look['energy_gap']:.1f}"]
                lines.append(f"| {row} | {record['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("write")
    runner = verbs.add_parser("run")
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--minutes", type=float, default=3)
    runner.add_argument("--seeds", default="0")
    runner.add_argument("--method", default="latent_mle", choices=("latent_mle", "multistage_nce"))
    runner.add_argument("--rows", default=",".join(ROWS))
    chosen = parser.parse_args()
    if chosen.verb == "run":
        for seed in chosen.seeds.split(","):
            for row in chosen.rows.split(","):
                cell(chosen.folder, chosen.method, row, chosen.minutes, int(seed))
    fill("inference", table(), "inference.md")
    fill("sooner", sooner(), "inference.md")
    fill("curves", curves(), "inference.md")


if __name__ == "__main__":
    main()
