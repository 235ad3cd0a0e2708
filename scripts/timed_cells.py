"""Cells of studies/inference.yaml: trainings that end after CPU minutes, or that are longer than a recipe.

In a timed cell all learning rates fall by a cosine to a tenth over its time. Looks in between are not in the
time. scripts/study.py runs the cells, by scripts/measures.py."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from sklearn.metrics import average_precision_score

from lebm import from_recipe, load
from lebm.config import recipes
from lebm.evaluation.data import batches, some_rows
from lebm.evaluation.scores import combined, score_pass
from lebm.metrics import DigitFeatures, frechet_distance, neighbour_rows
from lebm.samplers import Noise

Figures = dict[str, list[float | None]]
DRAWS, REAL, TEST = 5_000, 20_000, 2_000
LOOKS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
WITHOUT = dict.fromkeys(("logger", "use_distributed_sampler"), False)
WITHOUT |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
POOLS = {
    "pool": ("Langevin", 10, 0.4),
    "pool3": ("Langevin", 3, 0.4),
    "mala1": ("MALA", 1, 0.25),
    "mala3": ("MALA", 3, 0.25),
    "mala5": ("MALA", 5, 0.25),
    "narrow1": ("MALA", 1, 0.25),
    "narrow3": ("MALA", 3, 0.25),
    "together3": ("MALA", 3, 0.25),
}
"""Kernel of the pool's chains, steps per training step, and step size.

The networks of the narrow ones are half as wide. "together3" is "narrow3", and moves five slots at once."""
STAGE_STEPS = {"pool3": 1_300, "mala1": 2_400, "narrow1": 2_200, "narrow3": 2_200, "together3": 2_600}
STAGE_STEPS |= {"mala3": 1_300, "mala5": 900}
"""Steps per stage in three minutes; in proportion in others."""
PRODUCT = "model.init_args.prior.init_args.energy.init_args.active.init_args"
CHAINS, STEPS = "model.init_args.prior_sampler.init_args", "model.init_args.stages.init_args.steps"
EPOCHS, DECAY = "trainer.max_epochs", "model.init_args.optimizer.init_args.lr_decay"
EXACT: dict[str, Any] = {EPOCHS: 20, DECAY: 0.891, STEPS: 2750, f"{CHAINS}.together": 1}
LONGER: dict[str, dict[str, Any]] = {
    "latent_mle/mnist_normal_base+mala": {
        f"{CHAINS}.kernel": {"class_path": "MALA", "init_args": {"steps": 10, "step_size": 0.25}},
        f"{CHAINS}.fresh_steps": 800,
    },
    "multistage_nce/mnist_normal_base+exact": EXACT,
    "multistage_nce/mnist_normal_base+langevin": {
        **EXACT,
        f"{CHAINS}.kernel": {"class_path": "Langevin", "init_args": {"steps": 10, "step_size": 0.4}},
        f"{CHAINS}.fresh_steps": 300,
        "model.init_args.through_stages": False,
        f"{PRODUCT}.hidden": [200, 200],
    },
    "dual_mcmc/mnist": {EPOCHS: 3, DECAY: 0.5, "model.init_args.posterior_sampler.init_args.step_size": 0.05},
    "latent_mle/mnist_anomaly": {"data.init_args.held_out_label": 3},
}
"""What the cells of `lengths` set; of "dual_mcmc/mnist" one length is a third of the recipe's."""


def opened(*names: str, folder: str | None, settings: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The untrained model of recipes, and their data, ready for training and testing."""
    own = {} if folder is None else {"data.init_args.path": folder}
    model, data = from_recipe(*names, settings={**own, **(settings or {})})
    data.setup("fit")
    data.setup("test")
    return model, data


class Clock(Callback):
    """Ends training after CPU seconds, lets the rates fall with them, and looks at the model in between."""

    def __init__(self, seconds: float, look: Any) -> None:
        self.seconds, self.look, self.spent, self.found = seconds, look, 0.0, {}
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
            self.spent, minutes = spent, self.due.pop(0) / 60
            self.found |= {f"{name}@{minutes:g}": value for name, value in self.look(model).items()}
            self.begun = time.process_time()
        trainer.should_stop = trainer.should_stop or share >= 1


class Scale:
    """Fréchet distance in the shipped digit features, from draws to training images."""

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


def draws(model: Any, n: int, steps: int | None) -> torch.Tensor:
    parts = range(0, n, 500)
    return torch.cat([model.sample(500, steps=steps, generator=noise("sample", i)) for i in parts])


def spread(z: torch.Tensor) -> float:
    return float(z.square().mean().sqrt())


def quick(scale: Scale, x: torch.Tensor) -> Any:
    """A look: the distance of 2,000 draws by 60 steps, spreads of latents, and the energy gap."""

    def measure(model: Any) -> dict[str, float]:
        model.eval()
        distance = scale.distance(scale.of(draws(model, 2_000, 60)))
        z = model.encode(x[:500], generator=noise("encode"))
        prior = model.sample_latent(500, steps=60, generator=noise("prior"))
        with torch.no_grad():
            gap = float(model.prior.energy(z).mean() - model.prior.energy(prior).mean())
        model.train()
        return {"distance": distance, "spread": spread(z), "prior_spread": spread(prior), "energy_gap": gap}

    return measure


def measures(model: Any, scale: Scale, x: torch.Tensor) -> dict[str, float]:
    """The figures of a timed cell, from the last weights."""
    model.eval()
    found: dict[str, float] = {"floor": scale.floor}
    for steps in (60, 1000):
        fake = scale.of(draws(model, DRAWS, steps))
        found[f"distance_{steps}"] = scale.distance(fake)
    near = neighbour_rows(scale.real[:DRAWS].float(), fake.float())
    found |= {name: float(near[name].mean()) for name in ("precision", "recall")}
    if hasattr(model.prior_sampler, "pooled"):
        source = Noise([(7, "pool")])
        pool = [model.decode(model.pool_latents(500, generator=source)) for _ in range(DRAWS // 500)]
        found["distance_pool"] = scale.distance(scale.of(torch.cat(pool)))
    steps = {"Variational": 0, "Taught": 20}.get(type(model.inference).__name__, 500)
    parts = enumerate(x.split(500))
    z = torch.cat([model.encode(x, steps=steps, generator=noise("encode", i * 500)) for i, x in parts])
    with torch.no_grad():
        found["mse"] = float((model.decode(z) - x).square().mean())
    return found | {"spread": spread(z)}


def timed(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Train for CPU minutes with one kind of inference (``row``, before the plus) and of prior chains."""
    kind, _, pool = settings["row"].partition("+")
    changes: dict[str, Any] = {"seed_everything": settings["seed_everything"]}
    if kind.endswith("_mala"):
        exact = {"steps": 20 if kind.startswith("short_run") else 5, "step_size": 0.05}
        changes["model.init_args.posterior_sampler"] = {"class_path": "MALA", "init_args": exact}
    if pool:
        kernel, steps, size = POOLS[pool]
        changes[f"{CHAINS}.kernel"] = {"class_path": kernel, "init_args": {"steps": steps, "step_size": size}}
    if settings["method"] == "multistage_nce":
        changes[STEPS] = int(STAGE_STEPS[pool] * settings["minutes"] / 3)
        changes["model.init_args.optimizer.init_args.lr.energy"] = 1e-3
        changes["model.init_args.through_stages"] = pool not in ("pool3", "mala3")
        changes |= {f"{CHAINS}.together": 5} if pool == "together3" else {}
        changes |= {f"{PRODUCT}.hidden": [100, 100]} if pool.startswith(("narrow", "together")) else {}
    overlays = [f"inference/{kind.removesuffix('_mala')}", *(["prior/persistent"] if pool else [])]
    name = f"{settings['method']}/mnist_published"
    model, module = opened(name, *overlays, folder=data, settings=changes)
    scale, x = Scale(module), images(module.test, range(TEST))
    clock = Clock(60 * settings["minutes"], quick(scale, x))
    trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=[clock], limit_val_batches=0, **WITHOUT)
    trainer.fit(model, module)
    trainer.save_checkpoint(run / "last.ckpt")
    found = {**clock.found, **measures(load(run / "last.ckpt"), scale, x), "steps": trainer.global_step}
    return {key: [value, None, None] for key, value in found.items()}


class Halves(Callback):
    """Keeps the weights after every half of the recipe's length, with the CPU time until then."""

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self.folder, self.seen, self.kept = every, folder, 0, {}

    def on_train_start(self, trainer: Trainer, model: Any) -> None:
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, model: Any, *rest: Any) -> None:
        self.seen += 1
        if self.seen % self.every == 0:
            minutes, path = (time.process_time() - self.begun) / 60, self.folder / f"{self.seen}.ckpt"
            trainer.save_checkpoint(path)
            self.kept[self.seen // self.every / 2] = (minutes, path)


def looked(model: Any, data: Any, scale: Scale) -> dict[str, float]:
    """Distance and error of a model of all digits, AUPRC of a model of nine."""
    model.eval()
    if data.held_out_label is not None:
        train = score_pass(model, batches(some_rows(data.train, 0, 5_000), 500), "training images")
        test = score_pass(model, batches(data.test, 500), "test images")
        ranked = test["label"] == data.held_out_label
        return {"auprc": float(average_precision_score(ranked, combined(test, train)))}
    x = images(data.test, range(TEST))
    z = [model.encode(part, generator=noise("encode", 500 * i)) for i, part in enumerate(x.split(500))]
    with torch.no_grad():
        error = float((model.decode(torch.cat(z)) - x).square().mean())
    return {"distance": scale.distance(scale.of(draws(model, DRAWS, None))), "mse": error}


def lengths(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Train a recipe for a multiple of its length. Its rates fall to the same share; stages are longer."""
    recipe, times = settings["recipe"], settings["times"]
    name, own = recipe.partition("+")[0], LONGER.get(recipe, {})
    content = yaml.safe_load(recipes.find(name).read_text())
    arguments = content["model"]["init_args"]
    epochs = own.get(EPOCHS, content["trainer"]["max_epochs"])
    decay = own.get(DECAY, arguments["optimizer"]["lr_decay"])
    changes = {"seed_everything": settings["seed_everything"], **own, DECAY: decay ** (1 / times)}
    changes.pop(EPOCHS, None)
    if "stages" in arguments:
        changes[STEPS] = times * own.get(STEPS, arguments["stages"]["init_args"]["steps"])
    model, module = opened(name, folder=data, settings=changes)
    halves = Halves(epochs * (len(module.train) // module.batch_size) // 2, run)
    callbacks: dict[str, Any] = {"callbacks": [halves], "limit_val_batches": 0}
    Trainer(max_epochs=epochs * times, accelerator="cpu", **callbacks, **WITHOUT).fit(model, module)
    scale = Scale(module)
    found = {"floor": scale.floor}
    for share, (minutes, path) in halves.kept.items():
        values = {"minutes": minutes, **looked(load(path), module, scale)}
        found |= {f"{key}@{share:g}": value for key, value in values.items()}
    return {key: [value, None, None] for key, value in found.items()}
