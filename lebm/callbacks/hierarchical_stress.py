"""Two stress tests: an attack on the encoder, and a prior chain far longer than in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lebm.callbacks.base import EvaluationCallback, Outputs
from lebm.callbacks.hierarchical import layers_of
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.metrics.attack import latent_attack, layer_divergences
from lebm.models.encoders import DiagonalGaussian
from lebm.models.priors import Prior
from lebm.plots.grids import image_grid
from lebm.samplers.noise import Noise

__all__ = ["LatentAttack", "LongChain"]


class LatentAttack(EvaluationCallback):
    """Attacks the encoder layer by layer on images of the first batch, each made to be taken for its
    neighbour.

    Logs ``attack/layer_1``, ...: ``KL(q(z_i | attacked) || q(z_i | target))`` of the attacked layer in nats,
    and ``attack/layer_1_before``, the same of the image as it was. An attack that stays near the latter has
    failed. The picture ``images/attack`` has images, targets, then for each layer the attacked images and
    their reconstructions. The form of the attack is ours.

    Args:
        n: number of images.
        radius: largest change of a pixel, in the [-1, 1] range.
        steps: of the attack.

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

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        layers_of(model, self)
        if model.inferred(model.observations(batch)) is None:
            raise UserError("LatentAttack attacks an encoder, and this model has none")
        self._due = trainer.state.fn != TrainerFn.FITTING

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        x = self.output(outputs, "x")[: self.n].clone()
        if not self._due or len(x) < 2:
            return
        self._due = False
        target, layout = x.roll(1, dims=0), layers_of(model, self).layout

        def infer(x: Tensor) -> DiagonalGaussian:
            inferred = model.inferred(x)
            assert inferred is not None  # begin has seen to it
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
    """Does the prior's chain stay where it should when it runs on? Draws the model at several lengths of
    *one* chain.

    In ``images/long_chain`` each row is a chain and each column a length. Logs ``long_chain/rms`` of the
    latents and, where there is one, ``long_chain/log_density`` of the prior (unnormalised), each at the
    model's own length and, with ``_end``, at the last. For every method whose ``sample_latent`` runs a chain.

    Args:
        lengths: numbers of transitions, each a multiple of ten, so that a longer chain repeats a shorter one.
        n: number of chains.
        seed: of their noise.

    Example:
        >>> from lebm.callbacks import LongChain
        >>> LongChain(lengths=(0, 60, 600)).n
        64
    """

    def __init__(
        self, lengths: tuple[int, ...] = (0, 60, 250, 500, 1000, 2500), n: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        if (
            n < 1
            or not lengths
            or any(length < 0 or length % 10 for length in lengths)
            or sorted(lengths) != list(lengths)
        ):
            raise ValueError(
                f"needs at least one chain, and lengths that rise in multiples of ten, not {n} and"
                f" {list(lengths)}"
            )
        self.lengths, self.n, self.seed = tuple(lengths), n, seed

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            return
        # Every process draws the same chains, so that the figures agree.
        lengths = {length: Noise.shards(self.seed, "long chain") for length in self.lengths}
        states = {
            length: model.sample_latent(self.n, steps=length, generator=noise)
            for length, noise in lengths.items()
        }
        own = model.sample_latent(self.n, generator=Noise.shards(self.seed, "long chain"))
        values: dict[str, float] = {}
        for suffix, z in (("", own), ("_end", states[self.lengths[-1]])):
            values[f"{stage}/long_chain/rms{suffix}"] = float(z.double().square().mean().sqrt())
            prior = model.latent_prior
            if prior is not None:
                with torch.no_grad():
                    values[f"{stage}/long_chain/log_density{suffix}"] = float(prior.log_density(z).mean())
        self.report(model, values)
        self.protocol.update(lengths=list(self.lengths), chains=self.n, seed=self.seed)
        rows = torch.stack([model.decode(z[:10]) for z in states.values()], dim=1).flatten(0, 1)
        publish_image(trainer, "long_chain", image_grid(rows, len(states)))
        if trainer.is_global_zero and stage == "test":
            Console().print(_table(states, model.latent_prior))


def _table(states: Mapping[int, Tensor], prior: Prior | None) -> Table:
    table = Table(title="One prior chain at several lengths")
    for column in ("transitions", "root mean square", "log-density of the prior"):
        table.add_column(column, justify="right")
    for length, z in states.items():
        with torch.no_grad():
            density = "" if prior is None else f"{float(prior.log_density(z).mean()):.2f}"
        table.add_row(str(length), f"{float(z.double().square().mean().sqrt()):.3f}", density)
    return table
