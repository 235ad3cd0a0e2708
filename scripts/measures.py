"""Measurements of a study beyond `lebm evaluate`; `lebm study run` calls them in processes.

    python scripts/measures.py FUNCTION RUN SETTINGS DATA

FUNCTION measures the run folder RUN, or trains as well, and its figures go to RUN/figures.json. SETTINGS are
the settings of the cell as JSON. DATA is the data folder, or empty for the data of the run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import base_priors
import embedding_cells
import label_cells
import numpy as np
import torch
from base_priors import WITHOUT, Figures, alone, half_width
from lightning.pytorch import Callback, Trainer
from sklearn.metrics import average_precision_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

import lebm
from lebm.callbacks import LayerClassification, ReconstructionError
from lebm.density_ratio import Training, logistic
from lebm.evaluation.data import RunImages, batches, some_rows
from lebm.evaluation.reopen import reopen
from lebm.evaluation.scores import combined, score_pass
from lebm.evaluation.sentences import LikelihoodBounds, SampleQuality
from lebm.metrics import DigitFeatures, frechet_distance, neighbour_rows
from lebm.metrics.text_likelihood import Budget, language_model_perplexity
from lebm.models import DiagonalGaussian, MLPEnergy, RatioPrior, RatioProduct, StandardNormal, frozen
from lebm.run.folder import hardware, versions
from lebm.samplers import Noise, SamplingImportanceResampling

NORMAL, LEAKED, LAST = 5_000, 0.8, 10
MOVES, MIXTURES, ALL = 200, (1, 10, 100), 10_000
VERSES, BOUND_DRAWS, FITTED, COMPONENTS = 100, 100, 10_000, 10
REVISER = "pretrained/dual_mcmc-mnist"
DRAWS, REAL, TEST = 5_000, 20_000, 2_000
LOOKS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
POOLS = {
    "pool": ("Langevin", 10, 0.4),
    "pool3": ("Langevin", 3, 0.4),
    "mala1": ("MALA", 1, 0.25),
    "mala5": ("MALA", 5, 0.25),
    "narrow1": ("MALA", 1, 0.25),
    "narrow3": ("MALA", 3, 0.25),
    "together3": ("MALA", 3, 0.25),
}
"""Kernel of the pool's chains, steps per training step, and step size.

The networks of the narrow ones are half as wide. "together3" is "narrow3", and moves five slots at once."""
STAGE_STEPS = {"pool3": 1_300, "mala1": 2_400, "narrow1": 2_200, "narrow3": 2_200, "together3": 2_600}
STAGE_STEPS |= {"mala5": 900}
"""Steps per stage in three minutes; in proportion in others."""
PRODUCT = "model.init_args.prior.init_args.energy.init_args.active.init_args"
CHAINS, STEPS = "model.init_args.prior_sampler.init_args", "model.init_args.stages.init_args.steps"


def with_ends(metrics: dict[str, float]) -> Figures:
    """Return figures from a flat mapping, in which ``a`` has ends ``a_low`` and ``a_high``, or ``a_half``."""
    found: Figures = {}
    for name, value in metrics.items():
        if name.endswith(("_low", "_high", "_half")):
            continue
        half, ends = metrics.get(f"{name}_half"), [metrics.get(f"{name}_{end}") for end in ("low", "high")]
        found[name] = [value, *([value - half, value + half] if half is not None else ends)]
    return found


def opened(*names: str, folder: str | None, settings: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Return the untrained model of recipes, and their data, ready for training and testing."""
    own = {} if folder is None else {"data.init_args.path": folder}
    model, data = lebm.from_recipe(*names, settings={**own, **(settings or {})})
    data.setup("fit")
    data.setup("test")
    return model, data


class Scale:
    """The Fréchet distance of draws to training images in the packaged digit features."""

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


def tested(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return metrics of `lebm test`; the accuracies of layers are ``accuracy/layer_1`` and so on."""
    subprocess.run([sys.executable, "-m", "lebm", "test", str(run)], check=True)
    metrics = json.loads((run / "test.json").read_text())["metrics"]
    return with_ends({name.removeprefix("test/").removeprefix("latent_"): v for name, v in metrics.items()})


def layers(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return accuracy of each layer, root mean square of q's means, and the KL of q to N(0, I) in nats."""
    model, module = lebm.load(run), reopen(run, data)
    judge = Trainer(accelerator="cpu", callbacks=[LayerClassification(), ReconstructionError()], **WITHOUT)
    metrics = judge.test(model, module, verbose=False)[0]
    found = with_ends({k.removeprefix("test/").removeprefix("latent_"): v for k, v in metrics.items()})
    with torch.no_grad():
        q = model.eval().inferred(images(module.test, range(len(module.test))))
        normal = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
        squares, divergences = q.mean.square(), q.divergences(normal)
    for number, part in enumerate(model.likelihood.generator.layout.slices, start=1):
        found |= alone(**{f"spread/layer_{number}": float(squares[:, part].mean().sqrt())})
        found |= alone(**{f"kl/layer_{number}": float(divergences[:, part].sum(1).mean())})
    return found


def protocols(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the AUPRC of a training with all epochs stored, under several protocols."""
    opened, found = RunImages.of(reopen(run, data)), {}
    epochs = [scored(path, opened) for path in sorted((run / "checkpoints").glob("epoch=*.ckpt"))]
    anomaly = epochs[-1][0]["label"] == opened.held_out_label
    rate = float(anomaly.double().mean())
    for score in ("reconstruction", "combined"):
        groups = [(test[score][anomaly], test[score][~anomaly], seen[score]) for test, seen in epochs]
        honest, leaked = ([precision(*own, rate, share) for own in groups] for share in (0.0, LEAKED))
        found |= {
            f"{score}/honest": honest[-1],
            f"{score}/mean of the last {LAST} epochs": float(np.mean(honest[-LAST:])),
            f"{score}/best epoch": max(honest),
            f"{score}/leaked": leaked[-1],
            f"{score}/leaked, best epoch": max(leaked),
        }
        for other in (0.1, 0.5):
            found[f"{score}/base rate {other:g}"] = precision(*groups[-1], other, 0.0)
    return alone(**found)


def scored(path: Path, opened: RunImages) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the scores of the test images and of 5,000 training images by one checkpoint."""
    model, trained = lebm.load(path), some_rows(opened.train, 0, 2 * NORMAL)
    order = np.random.default_rng(0).permutation(len(trained))
    seen = score_pass(model, batches(trained, 500), "training images")
    test = score_pass(model, batches(opened.test, 500), "test images")
    compared, rest = ({k: v[rows] for k, v in seen.items()} for rows in (order[:NORMAL], order[NORMAL:]))
    for scores in (test, rest):
        scores["combined"] = combined(scores, compared)
    return test, rest


def precision(anomalies: Tensor, unseen: Tensor, seen: Tensor, rate: float, leaked: float) -> float:
    """Return average precision with a share ``rate`` of anomalies and ``leaked`` of training images."""
    groups = anomalies, unseen, seen
    shares = rate, (1 - rate) * (1 - leaked), (1 - rate) * leaked
    pairs = zip(groups, shares, strict=True)
    weights = torch.cat([torch.full((len(group),), share / len(group)) for group, share in pairs])
    labels = torch.cat([torch.full((len(group),), group is anomalies) for group in groups])
    return float(average_precision_score(labels, torch.cat(groups), sample_weight=weights))


Row = tuple[str, Callable[[Tensor], Tensor] | None, Tensor, float]
"""Name, log-density in nats, draws ``(DRAWS, d)``, and the half width that log Z adds to the interval."""


def encodings(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return distances of draws and held-out log-densities of priors for the codes of `MultiStageNCE`.

    Gaussians, mixtures and one classifier (Aneja et al. 2021) are fitted to the codes of all training images.
    The product of the first k stages is measured for every k.
    """
    model, module = lebm.load(run).eval(), reopen(run, data)
    module.setup("fit")
    module.setup("test")
    scale, dual = Scale(module), lebm.load(REVISER) if "two_stage" in settings["recipe"] else None
    train = codes(model, module.train, len(module.train), "train")
    test = codes(model, module.test, ALL, "test")
    reached = torch.cat([model.decode(part).detach() for part in train[:DRAWS].split(500)])
    found = alone(**{"training images/distance": scale.floor})
    found |= alone(**{"their reconstructions/distance": scale.distance(scale.of(reached))})
    for name, density, z, half in (*gaussians(train), one_classifier(train), *stages(model), *chains(model)):
        with torch.no_grad():
            drawn = torch.cat([model.decode(part) for part in z.split(500)])
        found |= {f"{name}/{key}": value for key, value in quality(drawn, scale).items()}
        if dual is not None:
            parts = enumerate(drawn.split(500))
            revised = [dual.revise_images(part, Noise([(7, "revise", i)])) for i, part in parts]
            near = quality(torch.cat(revised), scale)
            found |= {f"{name}/{key}/revised": value for key, value in near.items()}
        if density is not None:
            with torch.no_grad():
                nats = density(test).double()
            middle, wide = float(nats.mean()), half + half_width(nats)
            found[f"{name}/log_density"] = [middle, middle - wide, middle + wide]
    return found


@torch.no_grad()
def codes(model: Any, rows: Any, count: int, purpose: str) -> Tensor:
    """Return one draw of ``q(z | x)`` per image."""
    parts = []
    for first in range(0, count, 500):
        noise = Noise.samples(7, purpose, index=range(first, first + 500))
        parts.append(model.encode(images(rows, range(first, first + 500)), steps=0, generator=noise))
    return torch.cat(parts)


def gaussians(z: Tensor) -> Iterator[Row]:
    """Yield the standard normal, and mixtures fitted by expectation maximisation."""
    unit = torch.distributions.MultivariateNormal(torch.zeros(z.shape[1]), torch.eye(z.shape[1]))
    draws = torch.randn(DRAWS, z.shape[1], generator=torch.Generator().manual_seed(1))
    yield "normal", unit.log_prob, draws, 0.0
    for count in MIXTURES:
        fitted = GaussianMixture(count, random_state=0, max_iter=200).fit(z.numpy())

        def density(at: Tensor, fitted: GaussianMixture = fitted) -> Tensor:
            return torch.from_numpy(fitted.score_samples(at.numpy()))

        draws = torch.from_numpy(fitted.sample(DRAWS)[0]).float()
        yield str(count), density, draws[torch.randperm(DRAWS)], 0.0


def one_classifier(z: Tensor) -> Row:
    """Return a noise contrastive prior (Aneja et al. 2021): one classifier, and draws by resampling.

    The classifier has the energy network of one stage."""
    torch.manual_seed(0)
    network = MLPEnergy(latent_dim=z.shape[1], hidden=[200, 200], activation="gelu", output_bias=True)
    noise = torch.Generator().manual_seed(2)
    shuffled = z[torch.randperm(len(z), generator=noise)]
    prior = RatioPrior(RatioProduct(network, max_stages=1)).to(z)
    logistic(shuffled, lambda n, source: prior.reference(n, source), prior.tilt.active, Training(), noise)
    prior.tilt.switch()
    sampler = SamplingImportanceResampling(5000, shared_target=True)
    sampler.run(prior.target(), prior.reference(32, noise), noise)  # as before the draws of results/
    with torch.no_grad():
        logits = -prior.energy(prior.reference(500_000, noise)).double()
    weights = (logits - logits.max()).exp()
    log_z = float(logits.max() + weights.mean().log())
    with frozen(prior):
        draws = sampler(prior.target(), prior.reference(DRAWS, noise), noise)
    return "ncp", lambda at: prior.log_density(at) - log_z, draws, half_width(weights / weights.mean())


def stages(model: Any) -> Iterator[Row]:
    """Yield the product of the first k stages, for every k, by the pool's kernel from earlier draws."""
    prior, noise = model.prior, torch.Generator().manual_seed(3)
    z, kernel = prior.reference(DRAWS, noise), model.prior_sampler.kernel
    for stage in range(1, prior.tilt.finished + 1):
        density, constant = prior.log_density_after(stage), prior.constants[stage]
        z, _ = kernel.run(density, z, noise, steps=MOVES)
        half = (constant.high - constant.low) / 2
        yield f"stage {stage}", lambda at, d=density, c=constant: d(at) - c.log_z, z, half


def chains(model: Any) -> Iterator[Row]:
    """Yield draws of the last product by fresh chains and by the pool, without a log-density."""
    noise = torch.Generator().manual_seed(4)
    through, sampler = model.through_stages, model.prior_sampler
    for name, chosen in (("last", False), ("through", True)):
        model.through_stages = chosen
        yield name, None, model.sample_latent(DRAWS, generator=noise), 0.0
    model.through_stages = through
    for name, steps in (("pool", 10), ("long pool", 300)) if model.has_pool else ():
        z, _ = sampler.kernel.run(model.prior.target(), sampler.pooled(DRAWS, noise), noise, steps=steps)
        yield name, None, z, 0.0


def quality(drawn: Tensor, scale: Scale) -> Figures:
    """Return distance, precision and recall of images ``(DRAWS, *event)``."""
    fake = scale.of(drawn)
    near = neighbour_rows(scale.real[:DRAWS].float(), fake.float())
    shares = {name: float(near[name].mean()) for name in ("precision", "recall")}
    return alone(distance=scale.distance(fake), **shares)


def verses(run: Path, data: str | None) -> tuple[Any, Any]:
    """Return the model of a run, which reads the verses of the data, and the data."""
    model, module = lebm.load(run).eval(), reopen(run, data)
    module.setup("fit")
    module.setup("test")
    model.sentences.adopt(module.vocabulary)
    return model, module


@torch.no_grad()
def sentences(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return bounds on the likelihood from the encoder's Gaussians, sample quality, and the divergence of q.

    With an energy, ``gain`` is the mean of ``log p(z) - log N(z; 0, I)`` at the codes of test verses.
    """
    model, module = verses(run, data)
    bounds = LikelihoodBounds(n=VERSES, chains=BOUND_DRAWS, start="posterior")
    quality, divergences, gains = SampleQuality(n=3000, steps=400), [], []
    unit = DiagonalGaussian(torch.zeros(()), torch.zeros(()))
    bounds.begin(model)
    quality.begin(model)
    for number, batch in enumerate(module.test_dataloader()):
        out = model.test_step(batch, number)
        bounds.update(model, out["x"], batch["index"])
        quality.update(model, out["x"], out["z"], batch["index"])
        divergences.append(model.inference.encoder(out["x"]).divergences(unit).sum(1))
        gains += [] if model.prior.is_exact else [-model.prior.energy(out["z"])]
    values = {**bounds.compute(), **quality.compute(model, module.train)}
    values["divergence"] = float(torch.cat(divergences).mean())
    if gains:
        gain = torch.cat(gains)
        values |= {"gain": float(gain.mean()) - values["log_z"], "gain_half": half_width(gain)}
    return with_ends(values)


@torch.no_grad()
def mixture(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Measure a mixture of Gaussians on the codes of a run of the plan `pulls`: samples and gain."""
    trained = run.parent / f"pulls-{settings['pull']}-{settings['seed_everything']}"
    model, module = verses(trained, data)
    parts = torch.arange(FITTED).split(500)
    z = torch.cat(
        [
            model.encode(module.train.tokens(rows.numpy()), generator=Noise.samples(0, "mixture", index=rows))
            for rows in parts
        ]
    )
    fitted = GaussianMixture(COMPONENTS, random_state=0, max_iter=200).fit(z.double().numpy())
    quality, gains = SampleQuality(n=3000, steps=400), []
    latents = torch.from_numpy(fitted.sample(quality.n)[0]).float()
    model.sample = lambda n, generator: model.likelihood.draw(latents[:n], generator)
    quality.begin(model)
    for number, batch in enumerate(module.test_dataloader()):
        out = model.test_step(batch, number)
        quality.update(model, out["x"], out["z"], batch["index"])
        unit = StandardNormal(model.latent_dim).log_density(out["z"])
        gains.append(torch.from_numpy(fitted.score_samples(out["z"].double().numpy())) - unit)
    values, gain = quality.compute(model, module.train), torch.cat(gains)
    chosen = {name: values[name] for name in ("forward_perplexity", "reverse_perplexity")}
    return with_ends({**chosen, "gain": float(gain.mean()), "gain_half": half_width(gain)})


def real(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the forward perplexity of as many other training verses as there are samples."""
    _, module = opened("latent_mle/kjv_published", folder=data)
    rows = torch.randperm(len(module.train), generator=torch.Generator().manual_seed(0)).numpy()
    learned, judged = module.train.tokens(rows[:3000]), module.train.tokens(rows[3000:6000])
    budget = Budget(steps=400, hidden=128, seed=0)
    return alone(
        forward_perplexity=language_model_perplexity(learned, judged, len(module.vocabulary), budget)
    )


class Clock(Callback):
    """A callback that ends training after CPU seconds, lowers the rates, and measures in between."""

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


def noise_of(purpose: str, first: int = 0) -> Noise:
    """Return noise for 500 rows."""
    return Noise.samples(7, purpose, index=range(first, first + 500))


def sampled(model: Any, n: int, steps: int | None) -> torch.Tensor:
    parts = range(0, n, 500)
    return torch.cat([model.sample(500, steps=steps, generator=noise_of("sample", i)) for i in parts])


def spread(z: torch.Tensor) -> float:
    return float(z.square().mean().sqrt())


def quick(scale: Scale, x: torch.Tensor) -> Any:
    """Return a quick measurement: distance of 2,000 draws by 60 steps, latent spreads, energy gap."""

    def measure(model: Any) -> dict[str, float]:
        model.eval()
        distance = scale.distance(scale.of(sampled(model, 2_000, 60)))
        z = model.encode(x[:500], generator=noise_of("encode"))
        prior = model.sample_latent(500, steps=60, generator=noise_of("prior"))
        with torch.no_grad():
            gap = float(model.prior.energy(z).mean() - model.prior.energy(prior).mean())
        model.train()
        return {"distance": distance, "spread": spread(z), "prior_spread": spread(prior), "energy_gap": gap}

    return measure


def last_weights(model: Any, scale: Scale, x: torch.Tensor) -> dict[str, float]:
    """Return the figures of a timed cell from the last weights."""
    model.eval()
    found: dict[str, float] = {"floor": scale.floor}
    for steps in (60, 1000):
        fake = scale.of(sampled(model, DRAWS, steps))
        found[f"distance_{steps}"] = scale.distance(fake)
    near = neighbour_rows(scale.real[:DRAWS].float(), fake.float())
    found |= {name: float(near[name].mean()) for name in ("precision", "recall")}
    if hasattr(model.prior_sampler, "pooled"):
        source = Noise([(7, "pool")])
        pool = [model.decode(model.pool_latents(500, generator=source)) for _ in range(DRAWS // 500)]
        found["distance_pool"] = scale.distance(scale.of(torch.cat(pool)))
    steps = {"Variational": 0, "Taught": 20}.get(type(model.inference).__name__, 500)
    parts = enumerate(x.split(500))
    z = torch.cat([model.encode(x, steps=steps, generator=noise_of("encode", i * 500)) for i, x in parts])
    with torch.no_grad():
        found["mse"] = float((model.decode(z) - x).square().mean())
    return found | {"spread": spread(z)}


def timed(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Train for CPU minutes with one kind of inference (``row``, before the plus) and of prior chains.

    All learning rates fall by a cosine to a tenth over the time, which excludes measurements in between.
    """
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
        changes["model.init_args.through_stages"] = pool != "pool3"
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
    found = {
        **clock.found,
        **last_weights(lebm.load(run / "last.ckpt"), scale, x),
        "steps": trainer.global_step,
    }
    return alone(**found)


def main(name: str, place: str, settings: str, data: str) -> None:
    modules = (base_priors, embedding_cells, label_cells)
    places = (globals(), *map(vars, modules))
    function = next(names[name] for names in places if name in names)
    begun, run = time.process_time(), Path(place)
    run.mkdir(parents=True, exist_ok=True)
    figures = function(run, json.loads(settings), data or None)
    fit = {}
    if not (run / "summary.json").exists():
        seconds, (steps, *_) = time.process_time() - begun, figures.pop("steps", [None])
        fit = {"versions": versions(), "hardware": hardware(), "cpu_time_seconds": seconds, "steps": steps}
    (run / "figures.json").write_text(json.dumps({"figures": figures, "fit": fit}))


if __name__ == "__main__":
    main(*sys.argv[1:])
