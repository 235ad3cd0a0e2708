"""Kinds of inference and prior chains at equal CPU time on MNIST: train the cells, then write the table.

    python scripts/inference_table.py run FOLDER --minutes 3 --seeds 0,1,2    # done cells are skipped
    python scripts/inference_table.py write

One thread: set OMP_NUM_THREADS=1. A cell ends after a number of CPU minutes, which measurements do not count
in. All learning rates fall by a cosine to a tenth over that time, in every cell. Everything is measured once,
at the end, from the last weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from results_page import ROOT, opened, publish, run_or_write
from write_inference import BLOCKS, FOLDER, METHODS, POOLS, ROWS

from lebm import load
from lebm.metrics import DigitFeatures, frechet_distance, neighbour_rows
from lebm.samplers import Noise

RECIPES = {"latent_mle": "latent_mle/mnist_published", "multistage_nce": "multistage_nce/mnist_published"}
DRAWS, REAL, TEST = 5_000, 20_000, 2_000
WITHOUT = dict.fromkeys(("logger", "use_distributed_sampler"), False)
WITHOUT |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
STAGE_STEPS = {
    "short_run": 300,
    "variational+pool3": 1_300,
    "variational+mala1": 2_400,
    "variational+narrow1": 2_200,
    "variational+narrow3": 2_200,
    "variational+together3": 2_600,
    "variational+mala3": 1_300,
    "variational+mala5": 900,
}
"""Steps per stage in three minutes; in proportion in others."""
LOOKS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)


class Clock(Callback):
    """Ends training after CPU seconds, lets the rates fall with them, and looks at the model in between."""

    def __init__(self, seconds: float, look: Any, looks: Sequence[float] = LOOKS) -> None:
        self.seconds, self.look, self.spent, self.curve = seconds, look, 0.0, []
        self.due = [60 * minutes for minutes in looks if 60 * minutes < seconds]

    def train(self, model: Any, data: Any) -> Trainer:
        """Train until the time is over."""
        trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=[self], limit_val_batches=0, **WITHOUT)
        trainer.fit(model, data)
        return trainer

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
        self.real = self.of(images(data.train, range(REAL)))
        self.floor = self.distance(self.of(images(data.train, range(REAL, REAL + DRAWS))))

    def of(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([self.features(part) for part in x.split(500)]).double()

    def distance(self, fake: torch.Tensor) -> float:
        return float(frechet_distance(fake.mean(0), fake.T.cov(), self.real.mean(0), self.real.T.cov()))


def images(rows: Any, which: range) -> torch.Tensor:
    x = rows.__getitems__(list(which))["x"]
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def noise(purpose: str, first: int = 0) -> Noise:
    """For 500 rows."""
    return Noise.samples(7, purpose, index=range(first, first + 500))


def draws(model: Any, n: int, steps: int) -> torch.Tensor:
    parts = range(0, n, 500)
    return torch.cat([model.sample(500, steps=steps, generator=noise("sample", i)) for i in parts])


def look(scale: Scale, x: torch.Tensor) -> Any:
    """A quick look: the distance of fewer draws by 60 steps, and how far posterior draws are spread."""

    def measure(model: Any) -> dict[str, float]:
        model.eval()
        distance = scale.distance(scale.of(draws(model, 2_000, 60)))
        z = model.encode(x[:500], generator=noise("encode"))
        prior = model.sample_latent(500, steps=60, generator=noise("prior"))
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
        source = Noise([(7, "pool")])
        pool = [model.decode(model.pool_latents(500, generator=source)) for _ in range(DRAWS // 500)]
        out["distance_pool"] = scale.distance(scale.of(torch.cat(pool)))
    kind = type(model.inference).__name__
    steps = {"Variational": 0, "Taught": 20}.get(kind, 500)
    parts = enumerate(x.split(500))
    z = torch.cat([model.encode(x, steps=steps, generator=noise("encode", i * 500)) for i, x in parts])
    out["mse"] = float((model.decode(z) - x).square().mean())
    out["spread"] = _spread(z)
    return out


def cell(folder: str, method: str, row: str, minutes: float, seed: int) -> None:
    target = FOLDER / f"{method}-{row}-{minutes:g}-{seed}.json"
    if target.exists():
        return
    settings: dict[str, Any] = {"seed_everything": seed}
    kind, _, pool = row.partition("+")
    if kind.endswith("_mala"):
        exact = {"steps": 20 if kind.startswith("short_run") else 5, "step_size": 0.05}
        settings["model.init_args.posterior_sampler"] = {"class_path": "MALA", "init_args": exact}
    if pool:
        kernel, transitions, size = POOLS[pool]
        sampler = {"class_path": kernel, "init_args": {"steps": transitions, "step_size": size}}
        settings |= {"model.init_args.prior_sampler.init_args.kernel": sampler}
    if method == "multistage_nce":
        steps = STAGE_STEPS.get(row, 800) * minutes / 3
        settings |= {"model.init_args.stages.init_args.steps": int(steps)}
        settings |= {"model.init_args.optimizer.init_args.lr.energy": 1e-3}
        settings |= {"model.init_args.through_stages": pool not in ("", "pool", "pool3", "mala3")}
        if pool == "together3":
            settings |= {"model.init_args.prior_sampler.init_args.together": 5}
        if pool.startswith(("narrow", "together")):
            active = "model.init_args.prior.init_args.energy.init_args.active"
            settings |= {f"{active}.init_args.hidden": [100, 100]}
    model, data = opened(RECIPES[method], *filter(None, ROWS[row]), folder=folder, settings=settings)
    scale, x = Scale(data), images(data.test, range(TEST))
    clock = Clock(60 * minutes, look(scale, x))
    trainer = clock.train(model, data)
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
    FOLDER.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target.stem, record["steps"], {k: round(v, 3) for k, v in record["figures"].items()}, flush=True)


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--minutes", type=float, default=3)
    runner.add_argument("--seeds", default="0")
    runner.add_argument("--method", default="latent_mle", choices=tuple(METHODS))
    runner.add_argument("--rows", default=",".join(ROWS))
    chosen = parser.parse_args()
    if chosen.verb == "run":
        for seed in chosen.seeds.split(","):
            for row in chosen.rows.split(","):
                cell(chosen.folder, chosen.method, row, chosen.minutes, int(seed))
    publish(BLOCKS)


if __name__ == "__main__":
    main()
