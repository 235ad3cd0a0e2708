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
from functools import partial
from pathlib import Path
from typing import Any

import base_priors
import embedding_cells
import label_cells
import numpy as np
import torch
import yaml
from base_priors import WITHOUT, Figures, alone, around, codes, half_width, nats_of, opened, to_training
from lightning.pytorch import Callback, Trainer
from sklearn.metrics import average_precision_score
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.utils.data import Subset

import lebm
from lebm.density_ratio import Training, logistic
from lebm.evaluation.chains import has_pool, pool_latents
from lebm.evaluation.data import RunImages, batches, some_rows
from lebm.evaluation.reopen import reopen
from lebm.evaluation.scores import combined, score_pass
from lebm.evaluation.sentences import LikelihoodBounds, SampleQuality
from lebm.metrics import DigitFeatures, neighbour_rows
from lebm.metrics.text_likelihood import Budget, language_model_perplexity
from lebm.models import DiagonalGaussian, MLPEnergy, RatioPrior, RatioProduct, StandardNormal, frozen
from lebm.run.folder import hardware, versions
from lebm.samplers import Noise, SamplingImportanceResampling

NORMAL, LEAKED = 5_000, 0.8
MOVES, MIXTURES = 200, (1, 10, 100)
VERSES, BOUND_DRAWS, FITTED, COMPONENTS = 100, 100, 10_000, 10
REVISER = "pretrained/dual_mcmc-mnist"
DRAWS, REAL, TEST = 5_000, 20_000, 2_000
LOOKS = (0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
TIMED = Path(__file__).parents[1] / "studies" / "inference.yaml"


def with_ends(metrics: dict[str, float]) -> Figures:
    """Return figures from a flat mapping, in which ``a`` may have ends ``a_low`` and ``a_high``."""
    return {
        name: [value, metrics.get(f"{name}_low"), metrics.get(f"{name}_high")]
        for name, value in metrics.items()
        if not name.endswith(("_low", "_high"))
    }


def tested(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return metrics of `lebm test`; the accuracies of layers are ``accuracy/layer_1`` and so on."""
    subprocess.run([sys.executable, "-m", "lebm", "test", str(run)], check=True)
    metrics = json.loads((run / "test.json").read_text())["metrics"]
    return with_ends({name.removeprefix("test/").removeprefix("latent_"): v for name, v in metrics.items()})


def layers(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the metrics of `lebm test`, and the KL of q to N(0, I) for each layer in nats."""
    model, module = opened(run, data)
    with torch.no_grad():
        q = model.encoder(module.test.observations())
        kl = q.divergences(DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean)))
    parts = enumerate(model.likelihood.generator.layout.slices, start=1)
    own = {f"kl/layer_{number}": float(kl[:, part].sum(1).mean()) for number, part in parts}
    return tested(run, settings, data) | alone(**own)


def protocols(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the AUPRC of a training with all epochs stored, under several protocols."""
    images, found = RunImages.of(reopen(run, data)), {}
    epochs = [scored(path, images) for path in sorted((run / "checkpoints").glob("epoch=*.ckpt"))]
    anomaly = images.test.anomaly
    rate = float(anomaly.double().mean())
    for score in ("reconstruction", "combined"):
        groups = [(test[score][anomaly], test[score][~anomaly], seen[score]) for test, seen in epochs]
        honest, leaked = ([precision(*own, rate, share) for own in groups] for share in (0.0, LEAKED))
        found |= {
            f"{score}/honest": honest[-1],
            f"{score}/best epoch": max(honest),
            f"{score}/leaked": leaked[-1],
            f"{score}/leaked, best epoch": max(leaked),
        }
        for other in (0.1, 0.5):
            found[f"{score}/base rate {other:g}"] = precision(*groups[-1], other, 0.0)
    return alone(**found)


def scored(path: Path, images: RunImages) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the scores of the test images and of 5,000 training images by one checkpoint."""
    model, trained = lebm.load(path), some_rows(images.train, 0, 2 * NORMAL)
    order = np.random.default_rng(0).permutation(len(trained))
    seen = score_pass(model, batches(trained, 500), "training images")
    test = score_pass(model, batches(images.test, 500), "test images")
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
    model, module = opened(run, data)
    far = to_training(Subset(module.train, range(REAL)), model.device, DigitFeatures())
    dual = lebm.load(REVISER) if "two_stage" in settings["recipe"] else None
    train, test = (codes(model, getattr(module, part), noise_of(part)) for part in ("train", "test"))
    found = {"training images/distance": far([module.train.observations(slice(REAL, REAL + DRAWS))])}
    found["their reconstructions/distance"] = far(map(model.decode, train[:DRAWS].split(500)))
    for name, density, z, half in (*gaussians(train), one_classifier(train), *stages(model)):
        with torch.no_grad():
            drawn = [model.decode(part) for part in z.split(500)]
            nats = None if density is None else density(test).double()
        found[f"{name}/distance"] = far(drawn)
        if dual is not None:
            revised = [dual.revise_images(part, Noise([(7, "revise", i)])) for i, part in enumerate(drawn)]
            found[f"{name}/distance/revised"] = far(revised)
        if nats is not None:
            found[f"{name}/log_density"] = around(float(nats.mean()), half + half_width(nats))
    return found


def gaussians(z: Tensor) -> Iterator[Row]:
    """Yield the standard normal, and mixtures fitted by expectation maximisation."""
    unit = torch.distributions.MultivariateNormal(torch.zeros(z.shape[1]), torch.eye(z.shape[1]))
    draws = torch.randn(DRAWS, z.shape[1], generator=torch.Generator().manual_seed(1))
    yield "normal", unit.log_prob, draws, 0.0
    for count in MIXTURES:
        fitted = GaussianMixture(count, random_state=0, max_iter=200).fit(z.numpy())
        draws = torch.from_numpy(fitted.sample(DRAWS)[0]).float()[torch.randperm(DRAWS)]
        yield str(count), partial(nats_of, fitted), draws, 0.0


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
    """Yield the product of the first k stages, for every k, by the pool's kernel from earlier draws.

    Draws of the last product by fresh chains, also through all stages, have no log-density.
    """
    prior, noise = model.prior, torch.Generator().manual_seed(3)
    z, kernel = prior.reference(DRAWS, noise), model.prior_sampler.kernel
    for stage in range(1, prior.tilt.finished + 1):
        density, constant = prior.log_density_after(stage), prior.constants[stage]
        z, _ = kernel.run(density, z, noise, steps=MOVES)
        half = float(constant.high - constant.low) / 2
        yield f"stage {stage}", lambda at, d=density, c=constant: d(at) - c.estimate, z, half
    noise = torch.Generator().manual_seed(4)
    for name, chosen in (("last", False), ("through", True)):
        model.through_stages = chosen
        yield name, None, model.sample_latent(DRAWS, generator=noise), 0.0


def judged(model: Any, module: Any, gain: Callable[[Tensor], Tensor] | None, bounds: Any = None) -> Figures:
    """Return sample quality, bounds if any, and the mean gain of a prior at the codes of test verses."""
    model.sentences.adopt(module.vocabulary)
    quality, gains = SampleQuality(n=3000, steps=400), []
    for judge in filter(None, (bounds, quality)):
        judge.begin(model)
    for number, batch in enumerate(module.test_dataloader()):
        out = model.test_step(batch, number)
        quality.update(model, out["x"], out["z"], batch["index"])
        if bounds:
            bounds.update(model, out["x"], batch["index"])
        if gain:
            gains.append(gain(out["z"]))
    found = with_ends({**(bounds.compute() if bounds else {}), **quality.compute(model, module.train)})
    if gain:
        values, log_z = torch.cat(gains), found["log_z"][0] if bounds else 0.0
        found["gain"] = around(float(values.mean()) - log_z, half_width(values))
    return found


@torch.no_grad()
def sentences(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return bounds on the likelihood from the encoder's Gaussians, and sample quality.

    With an energy, ``gain`` is the mean of ``log p(z) - log N(z; 0, I)`` at the codes of test verses.
    """
    model, module = opened(run, data)
    gain = None if model.prior.is_exact else lambda z: -model.prior.energy(z)
    return judged(model, module, gain, LikelihoodBounds(n=VERSES, chains=BOUND_DRAWS, start="posterior"))


@torch.no_grad()
def mixture(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Measure a mixture of Gaussians on the codes of a run of the plan `pulls`: samples and gain."""
    model, module = opened(run.parent / f"pulls-{settings['pull']}-{settings['seed_everything']}", data)
    parts = [
        model.encode(module.train.tokens(rows.numpy()), generator=Noise.samples(0, "mixture", index=rows))
        for rows in torch.arange(FITTED).split(500)
    ]
    fitted = GaussianMixture(COMPONENTS, random_state=0, max_iter=200).fit(torch.cat(parts).double().numpy())
    latents = torch.from_numpy(fitted.sample(3000)[0]).float()
    model.sample = lambda n, generator: model.likelihood.draw(latents[:n], generator)
    unit = StandardNormal(model.latent_dim)
    found = judged(model, module, lambda z: nats_of(fitted, z.double()) - unit.log_density(z))
    return {name: found[name] for name in ("forward_perplexity", "reverse_perplexity", "gain")}


def real(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the forward perplexity of as many other training verses as there are samples."""
    _, module = lebm.from_recipe("latent_mle/kjv_published", settings={"data.init_args.path": data})
    module.setup()
    rows = torch.randperm(len(module.train), generator=torch.Generator().manual_seed(0)).numpy()
    learned, other = module.train.tokens(rows[:3000]), module.train.tokens(rows[3000:6000])
    budget = Budget(steps=400, hidden=128, seed=0)
    return alone(forward_perplexity=language_model_perplexity(learned, other, len(module.vocabulary), budget))


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


def noise_of(purpose: str) -> Callable[[int], Noise]:
    """Return the noise of a batch of 500 rows by its number."""
    return lambda number: Noise.samples(7, purpose, index=range(500 * number, 500 * number + 500))


def sampled(model: Any, n: int, steps: int) -> list[Tensor]:
    noise = map(noise_of("sample"), range(n // 500))
    return [model.sample(500, steps=steps, generator=own) for own in noise]


def last_weights(model: Any, far: Callable[..., list[Any]], train: Tensor, test: Tensor) -> Figures:
    """Return the figures of a timed cell from the last weights."""
    model.eval()
    features, found = DigitFeatures(), {}
    for steps in (60, 1000):
        drawn = sampled(model, DRAWS, steps)
        found[f"distance_{steps}"] = far(drawn)
    with torch.no_grad():
        fake, true = (torch.cat([features(x) for x in parts]) for parts in (drawn, train.split(500)))
    found |= alone(recall=float(neighbour_rows(true, fake)["recall"].mean()))
    if has_pool(model):
        source = Noise([(7, "pool")])
        pool = [model.decode(pool_latents(model, 500, source)) for _ in range(DRAWS // 500)]
        found["distance_pool"] = far(pool)
    steps = {"Variational": 0, "Taught": 20}.get(type(model.inference).__name__, 500)
    z = codes(model, test, noise_of("encode"), steps)
    with torch.no_grad():
        mse = float((model.decode(z) - test).square().mean())
    return found | alone(mse=mse, spread=float(z.square().mean().sqrt()))


def timed(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Train for CPU minutes by the recipe of a row of studies/inference.yaml.

    All learning rates fall by a cosine to a tenth over the time, which excludes measurements in between.
    """
    cells = yaml.safe_load(TIMED.read_text())["cells"].values()
    rows = {name: row for cell in cells for name, row in cell["cases"]["row"].items()}
    case = rows[settings["row"]]
    changes = {**case.get("settings", {}), "seed_everything": settings["seed_everything"]}
    changes |= {} if data is None else {"data.init_args.path": data}
    model, module = lebm.from_recipe(*case["recipe"].split(" -c "), settings=changes)
    module.setup()
    test, train = module.test.observations(slice(TEST)), module.train.observations(slice(DRAWS))
    far = to_training(Subset(module.train, range(REAL)), model.device, DigitFeatures())

    def look(model: Any) -> dict[str, float]:
        model.eval()
        z = model.encode(test[:500], generator=noise_of("encode")(0))
        found = {"distance": far(sampled(model, 2_000, 60))[0], "spread": float(z.square().mean().sqrt())}
        model.train()
        return found

    clock = Clock(60 * settings["minutes"], look)
    trainer = Trainer(callbacks=[clock], **WITHOUT)
    trainer.fit(model, module)
    trainer.save_checkpoint(run / "last.ckpt")
    found = last_weights(lebm.load(run / "last.ckpt"), far, train, test)
    return alone(**clock.found, steps=trainer.global_step) | found


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
