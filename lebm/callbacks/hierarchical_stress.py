"""Two stress tests: an attack on the encoder, and a prior chain far longer than in training."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich import get_console
from rich.table import Table
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs
from lebm.callbacks.hierarchical import layers_of
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.attack import latent_attack, layer_divergences
from lebm.models.encoders import DiagonalGaussian
from lebm.models.priors import Prior
from lebm.plots.grids import image_grid
from lebm.samplers.noise import Noise

__all__ = ["LatentAttack", "LongChain"]


class LatentAttack(EvaluationCallback):
    """Attacks the encoder, layer by layer, on images of the first batch.

    An attack changes an image a little, until the encoder infers the latents of the next image, its target;
    see :func:`~lebm.metrics.attack.latent_attack`. ``attack/layer_1``, ... is
    ``KL(q(z_i | attacked) || q(z_i | target))`` of the attacked layer, in nats. ``attack/layer_1_before``,
    ... is the same for the unchanged image. If the two are close, the attack has failed. The picture
    ``images/attack`` has a row of images and a row of targets. Then come, for each layer, the attacked images
    and their reconstructions. This form of the attack is our choice.

    Args:
        n: number of images, at least 2.
        radius: largest change of a pixel, in the units of the [-1, 1] range.
        steps: gradient steps of the attack.

    Raises:
        ValueError: for an argument out of range.
        UserError: if the latent of the model has no layers, or the model has no encoder.

    Example:
        >>> from lebm.callbacks import LatentAttack
        >>> LatentAttack(radius=0.1).steps
        50
    """

    def __init__(self, n: int = 32, radius: float = 0.2, steps: int = 50) -> None:
        super().__init__()
        if n < 2 or not radius > 0 or steps < 1:
            raise ValueError(
                f"needs n of at least 2, a positive radius and at least 1 step, not {n}, {radius} and {steps}"
            )
        self.n, self.radius, self.steps = n, radius, steps
        self._due = False

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        layers_of(model, self)
        if model.inferred(model.observations(batch)) is None:
            raise UserError("LatentAttack attacks an encoder, and this model has none")
        self._due = trainer.state.fn != TrainerFn.FITTING

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        x = self.output(outputs, "x")[: self.n].clone()
        if not self._due or len(x) < 2:
            return
        self._due = False
        target, layout = x.roll(1, dims=0), layers_of(model, self).layout

        def infer(x: Tensor) -> DiagonalGaussian:
            inferred = model.inferred(x)
            assert inferred is not None  # begin has checked this
            return inferred

        with torch.no_grad():
            wanted = infer(target)
            before = layer_divergences(infer(x), wanted, layout).mean(dim=0)
        rows, values = [x, target], dict[str, float]()
        for layer in range(len(layout)):
            attacked = latent_attack(infer, x, target, layout, layer, radius=self.radius, steps=self.steps)
            with torch.no_grad():
                after = layer_divergences(infer(attacked), wanted, layout).mean(dim=0)
                rows += [attacked, model.decode(infer(attacked).mean)]
            name = f"{stage}/attack/layer_{layer + 1}"
            values |= {name: float(after[layer]), f"{name}_before": float(before[layer])}
        self.report(model, values)
        self.protocol.update(
            images=len(x),
            radius=self.radius,
            steps=self.steps,
            attack="sign gradient, projected onto the box",
        )
        publish_image(trainer, "attack", image_grid(torch.cat([row[:12] for row in rows]), min(12, len(x))))


class LongChain(EvaluationCallback):
    """Shows samples at several lengths of *one* prior chain, also beyond the length in training.

    A chain that leaves the region of plausible samples shows here. In ``images/long_chain`` each row is a
    chain and each column a length. ``long_chain/rms`` is the root mean square of the latents. For a model
    with a prior, ``long_chain/log_density`` is the unnormalised log-density of the prior. Both are measured
    at the model's default length and, with ``_end`` in the name, at the last length. This works for every
    method whose ``sample_latent`` runs a chain.

    Args:
        lengths: numbers of transitions, each a multiple of ten, in rising order. A longer chain begins with
            the transitions of the shorter ones.
        n: number of chains.
        seed: of the noise of the chains.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import LongChain
        >>> LongChain(lengths=(0, 60, 600)).n
        64
    """

    def __init__(
        self, lengths: tuple[int, ...] = (0, 60, 250, 500, 1000, 2500), n: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        rising = sorted(lengths) == list(lengths)
        if n < 1 or not lengths or not rising or any(length < 0 or length % 10 for length in lengths):
            raise ValueError(
                f"needs at least one chain, and lengths that rise in multiples of ten, not {n} and"
                f" {list(lengths)}"
            )
        self.lengths, self.n, self.seed = tuple(lengths), n, seed

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            return

        # Every process draws the same chains, so the values agree.
        def drawn(steps: int | None) -> Tensor:
            return model.sample_latent(self.n, steps=steps, generator=Noise.shards(self.seed, "long chain"))

        states, own = {length: drawn(length) for length in self.lengths}, drawn(None)
        values = {
            f"{stage}/long_chain/{name}{suffix}": value
            for suffix, z in (("", own), ("_end", states[self.lengths[-1]]))
            for name, value in _measured(z, model.latent_prior).items()
        }
        self.report(model, values)
        self.protocol.update(lengths=list(self.lengths), chains=self.n, seed=self.seed)
        rows = torch.stack([model.decode(z[:10]) for z in states.values()], dim=1).flatten(0, 1)
        publish_image(trainer, "long_chain", image_grid(rows, len(states)))
        if trainer.is_global_zero and stage == "test":
            table = Table(title="One prior chain at several lengths")
            for column in ("transitions", "root mean square", "log-density of the prior"):
                table.add_column(column, justify="right")
            for length, z in states.items():
                found = _measured(z, model.latent_prior)
                density = f"{found['log_density']:.2f}" if "log_density" in found else ""
                table.add_row(str(length), f"{found['rms']:.3f}", density)
            get_console().print(table)


@torch.no_grad()
def _measured(z: Tensor, prior: Prior | None) -> dict[str, float]:
    values = {"rms": float(z.double().square().mean().sqrt())}
    return values if prior is None else values | {"log_density": float(prior.log_density(z).mean())}
