"""Priors for the same generator and the same encodings: distance of draws and held-out log-density.

    python scripts/priors_table.py run NAME RUN FOLDER    # RUN is a finished run of MultiStageNCE
    python scripts/priors_table.py run NAME RUN FOLDER --revise pretrained/dual_mcmc-mnist
    python scripts/priors_table.py write

The generator and the encoder of RUN stay as they are. N(0, I), Gaussians and mixtures of Gaussians are fitted
to the encodings of all training images, and so is one classifier (NCP, Aneja et al. 2021). They stand beside
the product of the first k stages of RUN, for every k. Draws of a product go on for 200 steps of
the pool's kernel from the draws of the product before it. With --revise, the image chain of another
model revises the draws of every prior. One thread: set OMP_NUM_THREADS=1. It takes 10 CPU minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from inference_table import DRAWS, Scale, images
from results_page import half_width, keep, opened, publish, run_or_write, stored
from sklearn.mixture import GaussianMixture
from torch import Tensor
from write_inference import BLOCKS

from lebm import load
from lebm.estimators import noise_contrastive_prior
from lebm.metrics import neighbour_rows
from lebm.models import Likelihood, MLPEnergy
from lebm.samplers import Langevin, Noise

STEPS, MIXTURES, TEST = 200, (1, 10, 100), 10_000
NAME = "priors"

Row = tuple[str, Callable[[Tensor], Tensor] | None, Tensor, float]
"""Name, log-density in nats, draws ``(DRAWS, d)``, and the half width of what log Z adds to the interval.

The draws of several chains for one density have no log-density."""


@torch.no_grad()
def encodings(model: Any, rows: Any, count: int, purpose: str) -> Tensor:
    """One draw of ``q(z | x)`` per image."""
    parts = []
    for first in range(0, count, 500):
        noise = Noise.samples(7, purpose, index=range(first, first + 500))
        parts.append(model.encode(images(rows, range(first, first + 500)), steps=0, generator=noise))
    return torch.cat(parts)


def gaussians(z: Tensor) -> Iterator[Row]:
    """The standard normal, and mixtures that are fitted by expectation maximisation."""
    unit = torch.distributions.MultivariateNormal(torch.zeros(z.shape[1]), torch.eye(z.shape[1]))
    draws = torch.randn(DRAWS, z.shape[1], generator=torch.Generator().manual_seed(1))
    yield "normal", unit.log_prob, draws, 0.0
    for count in MIXTURES:
        fitted = GaussianMixture(count, random_state=0, max_iter=200).fit(z.numpy())

        def density(at: Tensor, fitted: GaussianMixture = fitted) -> Tensor:
            return torch.from_numpy(fitted.score_samples(at.numpy()))

        draws = torch.from_numpy(fitted.sample(DRAWS)[0]).float()
        yield str(count), density, draws[torch.randperm(DRAWS)], 0.0


def one_classifier(z: Tensor, likelihood: Likelihood) -> Row:
    """A noise contrastive prior, with the energy network of one stage and draws by resampling."""
    torch.manual_seed(0)
    network = MLPEnergy(latent_dim=z.shape[1], hidden=[200, 200], activation="gelu", output_bias=True)
    noise = torch.Generator().manual_seed(2)
    shuffled = z[torch.randperm(len(z), generator=noise)]
    model, _ = noise_contrastive_prior(likelihood, shuffled, network, Langevin(1, 0.1), generator=noise)
    with torch.no_grad():
        logits = -model.prior.energy(model.prior.reference(500_000, noise)).double()
    weights = (logits - logits.max()).exp()
    log_z = float(logits.max() + weights.mean().log())
    error = half_width(weights / weights.mean())
    draws = model.sample_latent(DRAWS, generator=noise)
    return "ncp", lambda at: model.prior.log_density(at) - log_z, draws, error


def stages(model: Any) -> Iterator[Row]:
    """The product of the first k stages, for every k."""
    prior, noise = model.prior, torch.Generator().manual_seed(3)
    z, kernel = prior.reference(DRAWS, noise), model.prior_sampler.kernel
    for stage in range(1, prior.tilt.finished + 1):
        density, constant = prior.log_density_after(stage), prior.constants[stage]
        z, _ = kernel.run(density, z, noise, steps=STEPS)
        half = (constant.high - constant.low) / 2
        yield f"stage {stage}", lambda at, d=density, c=constant: d(at) - c.log_z, z, half


def chains(model: Any) -> Iterator[Row]:
    """Draws of the last product by fresh chains, and by those of the pool."""
    noise = torch.Generator().manual_seed(4)
    through, sampler = model.through_stages, model.prior_sampler
    for name, chosen in (("last", False), ("through", True)):
        model.through_stages = chosen
        yield name, None, model.sample_latent(DRAWS, generator=noise), 0.0
    model.through_stages = through
    for name, steps in (("pool", 10), ("long pool", 300)) if model.has_pool else ():
        z, _ = sampler.kernel.run(model.prior.log_density, sampler.pooled(DRAWS, noise), noise, steps=steps)
        yield name, None, z, 0.0


def quality(images: Tensor, scale: Scale) -> dict[str, float]:
    """Distance, precision and recall of images ``(DRAWS, *event)``."""
    fake = scale.of(images)
    near = neighbour_rows(scale.real[:DRAWS].float(), fake.float())
    return {"distance": scale.distance(fake), **{k: float(near[k].mean()) for k in ("precision", "recall")}}


def measured(row: Row, model: Any, dual: Any, scale: Scale, test: Tensor) -> dict[str, Any]:
    name, density, z, half = row
    with torch.no_grad():
        drawn = torch.cat([model.decode(part) for part in z.split(500)])
    found: dict[str, Any] = {"prior": name, **quality(drawn, scale)}
    if dual is not None:
        parts = enumerate(drawn.split(500))
        revised = [dual.revise_images(part, Noise([(7, "revise", i)])) for i, part in parts]
        found["revised"] = quality(torch.cat(revised), scale)
    if density is not None:
        with torch.no_grad():
            nats = density(test).double()
        found |= {"log_density": float(nats.mean()), "half": half + half_width(nats)}
    return found


def digits(model: Any, scale: Scale) -> list[int]:
    """How many of 2,000 draws by fresh chains the shipped classifier takes for each digit, 0 to 9."""
    parts = []
    for first in range(0, 2_000, 500):
        noise = Noise.samples(7, "sample", index=range(first, first + 500))
        with torch.no_grad():
            parts.append(scale.features.with_logits(model.sample(500, generator=noise))[1].argmax(1))
    return torch.cat(parts).bincount(minlength=10).tolist()


def run(name: str, folder: str, data_folder: str, reviser: str | None) -> None:
    _, data = opened("latent_mle/mnist", folder=data_folder)
    begun, model, scale = time.process_time(), load(folder).eval(), Scale(data)
    train, test = (
        encodings(model, data.train, len(data.train), "train"),
        encodings(model, data.test, TEST, "test"),
    )
    rows, dual = [], None if reviser is None else load(reviser)
    for row in [*gaussians(train), one_classifier(train, model.likelihood), *stages(model), *chains(model)]:
        rows.append(measured(row, model, dual, scale, test))
        print({key: round(v, 2) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    reached = scale.of(torch.cat([model.decode(part).detach() for part in train[:DRAWS].split(500)]))
    every = {entry["name"]: entry for entry in stored(NAME, [])}
    every[name] = {
        "name": name,
        "command": f"python scripts/priors_table.py run {name} {folder} FOLDER"
        + (f" --revise {reviser}" if reviser else ""),
        "floor": scale.floor,
        "reconstructions": scale.distance(reached),
        "cpu_minutes": (time.process_time() - begun) / 60,
        "digits": digits(model, scale),
        "rows": rows,
    }
    keep(NAME, list(every.values()))


def main() -> None:
    parser, runner = run_or_write(__doc__)
    for name in ("name", "run", "folder"):
        runner.add_argument(name)
    runner.add_argument("--revise", metavar="MODEL")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen.name, chosen.run, chosen.folder, chosen.revise)
    publish(BLOCKS)


if __name__ == "__main__":
    main()
