"""Time of a DualMCMCTeaching step against the released loop, and seconds by part.

    python -m benchmarks.dual_mcmc --rounds 9

Same networks (with spectral norm), shapes, chain lengths and optimisers; variants interleaved; ratios inside
a round. The released loop is written anew in plain PyTorch: it draws noise at every step and lets every
forward of the energy compute its normalised weights and take a power iteration, as code that stays in
training mode does. Libraries that are installed (see ``peers.py``) run the image chain on the same energy.
``step_time.py`` prints this table too."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers import Potential, peers
from benchmarks.timing import Timings, interleave, machine
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.models import ConvEncoder, ConvGenerator, GaussianLikelihood, ResNetEnergy, ResNetGenerator, frozen
from lebm.samplers import Boltzmann, Langevin

__all__ = ["SIZES", "measure", "show"]

DRIFT, NOISE, LATENT = 0.5, 0.001, 32
SIZES = {
    "28-small": {
        "image": [1, 28, 28],
        "energy": [8, 16, 32],
        "generator": [64, 32],
        "encoder": [16, 32, 64],
        "end": 7,
        "batch": 50,
    },
    "32-32": {
        "image": [3, 32, 32],
        "energy": [32, 32, 32, 32],
        "generator": [32, 32, 32, 32],
        "encoder": [32, 64, 128],
        "end": 8,
        "batch": 20,
    },
}


def model_of(size: str, image_steps: int, latent_steps: int) -> DualMCMCTeaching:
    torch.manual_seed(0)
    shape, chosen = SIZES[size]["image"], SIZES[size]
    start = 7 if shape[1] == 28 else 4
    generator = ConvGenerator if len(chosen["generator"]) == 2 else ResNetGenerator
    return DualMCMCTeaching(
        ResNetEnergy(shape, chosen["energy"], [position < 2 for position in range(len(chosen["energy"]))]),
        GaussianLikelihood(generator(LATENT, shape, chosen["generator"], start=start), 0.212),
        ConvEncoder(LATENT, shape, chosen["encoder"], end=chosen["end"]),
        Langevin(image_steps, NOISE),
        Langevin(latent_steps, 0.1),
        AdamGroups({"energy": 1e-4, "generator": 3e-4, "encoder": 1e-4}, betas=(0.0, 0.9)),
        temperature=(NOISE / DRIFT) ** 2,
        teaching_weight=50.0,
        revised_inference_weight=0.1,
        scale_likelihood=False,
        batch_statistics=True,
    )


class ReleasedLoop:
    """One iteration in the order of the paper: both chains, then one step of each of three Adams."""

    def __init__(
        self, energy: nn.Module, generator: nn.Module, encoder: nn.Module, image_steps: int, latent_steps: int
    ) -> None:
        self.energy, self.generator, self.encoder = energy, generator, encoder
        self.image_steps, self.latent_steps = image_steps, latent_steps
        self.adams = [
            torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.0, 0.9))
            for net in (energy, generator, encoder)
        ]

    def revise_images(self, x: Tensor) -> Tensor:
        x = x.clone().detach().requires_grad_(True)
        for _ in range(self.image_steps):
            slope = torch.autograd.grad(self.energy(x).sum(), x)[0]
            x.data = x.data - 0.5 * DRIFT**2 * slope + NOISE * torch.randn_like(x).data
        return x.detach()

    def revise_latents(self, z: Tensor, x: Tensor) -> Tensor:
        z = z.clone().detach().requires_grad_(True)
        for _ in range(self.latent_steps):
            error = ((x - self.generator(z)) ** 2).sum() / 0.09
            slope = torch.autograd.grad(error, z)[0]
            z.data = z.data - 0.005 * (slope + z.data) + 0.1 * torch.randn_like(z).data
        return z.detach()

    def step(self, x: Tensor) -> None:
        z = torch.randn(len(x), LATENT)
        generated = self.generator(z)
        revised = self.revise_images(generated)
        q = self.encoder(x)
        z_revised = self.revise_latents(q.mean + q.log_scale.exp() * torch.randn_like(q.mean), x)
        again = self.encoder(revised)
        losses = (
            self.energy(x).mean() - self.energy(revised).mean(),
            ((x - self.generator(z_revised)) ** 2).sum() / len(x)
            + 50 * ((generated - revised) ** 2).sum() / len(x),
            -q.log_prob(z_revised).mean() - 0.1 * again.log_prob(z).mean(),
        )
        for adam, loss in zip(self.adams, losses, strict=True):
            adam.zero_grad()
            loss.backward()
            adam.step()


def measure(size: str, rounds: int, image_steps: int = 30, latent_steps: int = 10) -> dict[str, object]:
    """Ratios to the released loop and seconds by part, medians over rounds."""
    model = model_of(size, image_steps, latent_steps)
    twin = copy.deepcopy(model)
    released = ReleasedLoop(twin.energy, twin.likelihood.generator, twin.encoder, image_steps, latent_steps)
    x = torch.rand(SIZES[size]["batch"], *SIZES[size]["image"]) * 2 - 1
    z = torch.randn(len(x), LATENT)
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    counter = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad()
        model.loss({"x": x}, next(counter)).backward()
        optimizer.step()

    def image_chain() -> None:
        with frozen(model.energy):
            model.image_sampler(Boltzmann(model.energy, model.temperature), x)

    def latent_chain() -> None:
        with frozen(model.likelihood, batch_statistics=True):
            model.posterior_sampler(model.posterior(x), z)

    def of_peer(chain: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with frozen(model.energy):  # what a chain of theirs can have: weights normalised once
                chain()

        return run

    potential = Potential(Boltzmann(model.energy, model.temperature), model.energy)
    variants: dict[str, Callable[[], object]] = {
        **{
            f"{name} image chain": of_peer(chain)
            for name, chain in peers(potential, NOISE, image_steps, x).items()
        },
        "released step": lambda: released.step(x),
        "step": step,
        "released image chain": lambda: released.revise_images(x),
        "image chain": image_chain,
        "released latent chain": lambda: released.revise_latents(z, x),
        "latent chain": latent_chain,
    }
    return _summary(size, interleave(variants, rounds, warm_up=1))


def _summary(size: str, timings: Timings) -> dict[str, object]:
    seconds = {name: timings.median(name) for name in timings.seconds}
    result: dict[str, object] = {"size": size, "seconds": seconds}
    seconds["updates"] = seconds["step"] - seconds["image chain"] - seconds["latent chain"]
    for name in ("step", "image chain", "latent chain"):
        result[name] = dict(
            zip(("low", "median", "high"), timings.ratio(name, f"released {name}"), strict=True)
        )
    for name in ("ebmkit", "torchebm"):
        if f"{name} image chain" in seconds:
            result[name] = dict(
                zip(
                    ("low", "median", "high"),
                    timings.ratio("image chain", f"{name} image chain"),
                    strict=True,
                )
            )
    return result


def show(row: dict) -> str:
    """One line: ratios above 1 mean faster than the released loop."""
    ratios = "".join(
        f"{row[n]['median']:>9.2f} ({row[n]['low']:.2f}-{row[n]['high']:.2f})"
        for n in ("step", "image chain", "latent chain")
    )
    parts = "".join(
        f"{row['seconds'][name]:>10.3f}" for name in ("step", "image chain", "latent chain", "updates")
    )
    others = "".join(
        f"; image chain over {n}'s {row[n]['median']:.2f}" for n in ("ebmkit", "torchebm") if n in row
    )
    return f"{row['size']:10}{ratios}{parts}{others}"


HEAD = (
    f"{'size':10}{'step':>21}{'image chain':>21}{'latent chain':>21}"
    f"{'seconds: step':>14}{'image':>6}{'latent':>10}{'updates':>10}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image-steps", type=int, default=30)
    options = parser.parse_args()
    print(machine())
    print(HEAD)
    for size in options.size or list(SIZES):
        print(show(measure(size, options.rounds, options.image_steps)), flush=True)


if __name__ == "__main__":
    main()
