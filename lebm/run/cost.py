"""What a training step costs: floating-point operations, counted without a device and without values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lebm.component import describe
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.estimators.multistage_nce import MultiStageNCE
from lebm.models.observations import event_shape
from lebm.models.text_likelihood import CategoricalLikelihood
from lebm.models.text_vocabulary import UNKNOWN
from lebm.samplers.base import Sampler
from lebm.samplers.langevin import Langevin
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["PEAK", "UTILISATION", "Cost", "batch_of", "known_rows", "run_cost", "step_flops", "training_rows"]

PEAK = 19.5e12
"""Floating-point operations per second of an NVIDIA A100 in single precision, as its data sheet says."""
UTILISATION = 0.3
"""Assumed share of the peak that a training step reaches."""
_COUNTED = {"meta": 2, "cpu": 1}  # rows of the batch that is counted; BatchNorm needs two

_ROWS = {
    "embedded:mnist": 8_000,
    "ylecun/mnist": 60_000,
    "zalando-datasets/fashion_mnist": 60_000,
    "uoft-cs/cifar10": 50_000,
    "ufldl-stanford/svhn": 73_257,
    "ufldl-stanford/svhn extra": 531_131,
    "flwrlabs/celeba": 162_770,
    "korexyz/celeba-hq-256x256": 28_000,
    "stanfordnlp/snli": 549_367,
}
"""Training rows of the data sets of the recipes, so that nothing has to be downloaded or opened."""


@dataclass(frozen=True)
class Cost:
    """The arithmetic of a training run.

    Args:
        flops: floating-point operations per row and step.
        batch_size: rows per step.
        steps: training steps of the run; ``None`` if the number of rows is not known.

    Example:
        >>> from lebm.run.cost import Cost
        >>> Cost(flops=1e9, batch_size=100, steps=58_500).duration
        '0.28 hours'
    """

    flops: float
    batch_size: int
    steps: int | None

    @property
    def hours_per_step(self) -> float:
        """``flops * batch_size / (PEAK * UTILISATION)`` in hours."""
        return self.flops * self.batch_size / (PEAK * UTILISATION) / 3600

    @property
    def gigaflops(self) -> str:
        """``flops * batch_size`` in units of 1e9 operations, as text."""
        return _short(self.flops * self.batch_size / 1e9)

    @property
    def duration(self) -> str:
        """Hours of the whole run; of 1,000 steps if their number is not known."""
        if self.steps is None:
            return f"{_short(1000 * self.hours_per_step)} hours per 1,000 steps"
        return f"{_short(self.steps * self.hours_per_step)} hours"

    @property
    def line(self) -> str:
        """All of it in one line."""
        steps = "" if self.steps is None else f"{self.steps:,} steps, "
        step = f"{self.gigaflops} GFLOP per step of {self.batch_size} rows"
        return f"{step}, {steps}{self.duration} on an A100 at {UTILISATION:.0%} of {PEAK / 1e12:g} TFLOP/s"


def _short(value: float) -> str:
    """Two digits, and no exponent."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def batch_of(model: LatentEstimator, rows: int, device: str) -> dict[str, Tensor]:
    """A batch of the model's kind without content: grey images, points at 0, or sentences of full length.

    Raises:
        UserError: if the model does not say what it observes.
    """
    index = torch.arange(rows, device=device)
    shape = event_shape(model.observation_model)
    if shape is not None:
        return {"x": torch.zeros(rows, *shape, device=device), "index": index}
    sentences = model.observation_model
    if not isinstance(sentences, CategoricalLikelihood):
        raise UserError("the model does not say what it observes")
    length = sentences.generator.max_length
    return {"x": torch.full((rows, length), UNKNOWN, device=device), "index": index}


def step_flops(model: LatentEstimator) -> float:
    """Floating-point operations per row of one training step, forward and backward, all chains included.

    Matrix products and convolutions count, a multiplication and an addition as two operations. Activations,
    norms and the optimiser do not count. A chain is run for one and for two transitions, and its length gives
    the rest. The stages of :class:`~lebm.estimators.MultiStageNCE` differ, and the result is the mean of the
    first and the last. Sentences have their full length, so that theirs is an upper bound.

    Args:
        model: on the ``meta`` device, where nothing is computed. A model whose step depends on values is
            counted on the CPU. The model loses its weights and must not be used again.

    Raises:
        UserError: if the model does not say what it observes.
    """
    if model.device.type == "meta":
        try:
            return _of_all_stages(model, "meta")
        except NotImplementedError:  # sentences: which words there are depends on values
            pass
    model.to_empty(device="cpu")
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.zero_()
    return _of_all_stages(model, "cpu")


def _of_all_stages(model: LatentEstimator, device: str) -> float:
    first = _of_step(model, device)
    if not isinstance(model, MultiStageNCE):
        return first
    for _ in range(model.prior.tilt.max_stages - 1):
        model.prior.tilt.switch(warm_start=True, seed=0)
    return (first + _of_step(model, device)) / 2


def _of_step(model: LatentEstimator, device: str) -> float:
    model.zero_grad()
    with _counting(model) as counter, _without_onednn():
        batch = batch_of(model, _COUNTED[device], device)
        for _ in model.updates():
            model.loss(batch, 0).backward()
    return counter.total / _COUNTED[device]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Recurrent networks as matrix products: oneDNN runs one as a single operation, which has no formula."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of Intel GPUs when it reads these flags
        with torch.backends.mkldnn.flags(enabled=False):
            yield


class _Counter(TorchDispatchMode):
    """Adds up the operations of what runs inside. ``FlopCounterMode`` cannot be used inside a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _Nothing(Noise):
    """Numbers without content, on any device."""

    def _draw(self, kind: str, shape: Any, steps: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros((*(() if steps is None else (steps,)), *shape), dtype=dtype, device=device)


@contextmanager
def _counting(model: LatentEstimator) -> Iterator[_Counter]:
    """Count what the model computes, each chain by its first two transitions."""
    counter = _Counter()

    def follow(
        name: str, sampler: Sampler, target: Any, start: Tensor, noise: RandomSource, steps: int | None = None
    ) -> Tensor:
        length = sampler.steps if steps is None else steps
        begun = counter.total
        end = sampler(target, start, noise, steps=min(length, 1))
        once = counter.total - begun
        if length > 1:
            sampler(target, start, noise, steps=2)
            twice = counter.total - begun - once
            counter.total = begun + once + (length - 1) * (twice - once)
        return end

    compiling = [part for part in model.modules() if isinstance(part, Langevin) and part.compiles]
    own: dict[str, Any] = {"follow": follow, "noise": lambda *key: _Nothing([key])}
    for part in compiling:
        part.compiles = False
    vars(model).update(own)
    try:
        with counter:
            yield counter
    finally:
        for part in compiling:
            part.compiles = True
        for name in own:
            del vars(model)[name]


def run_cost(model: LatentEstimator, data: Any, trainer: Mapping[str, Any]) -> Cost:
    """The cost of training a model on the data of a recipe.

    Args:
        model: as for :func:`step_flops`, which uses it up.
        data: the data module, or ``None``; nothing is downloaded.
        trainer: ``max_epochs``, ``max_steps`` and ``accumulate_grad_batches`` are read.

    Raises:
        UserError: if the model does not say what it observes.
    """
    batches = trainer.get("accumulate_grad_batches") or 1
    batch_size = getattr(data, "batch_size", 1)
    steps, epochs = trainer.get("max_steps") or -1, trainer.get("max_epochs") or -1
    rows = None if data is None else training_rows(data)
    if epochs > 0 and rows is not None:
        by_epochs = epochs * max(1, rows // (batch_size * batches))
        steps = by_epochs if steps < 0 else min(steps, by_epochs)
    return Cost(step_flops(model), batch_size * batches, steps if steps > 0 else None)


def training_rows(data: Any) -> int | None:
    """Rows of the training split, without a download; ``None`` if that is not known.

    Data inside the package are opened, and so are drawn ones. For public data sets a table has the number; a
    held-out label then counts as a tenth of the rows.
    """
    described = describe(data)
    settings = (described.get("init_args") or {}) if isinstance(described, dict) else {}
    path = settings.get("path")
    ours = type(data).__module__.startswith("lebm.")
    if ours and (path is None or path.startswith("embedded:")):
        data.setup("fit")
        return int(data.describe_split()["sizes"]["train"])
    return known_rows(settings)


def known_rows(settings: Mapping[str, Any]) -> int | None:
    """Training rows of a data set of the recipes, from a table; ``None`` for other data.

    Args:
        settings: ``path``, ``train_split``, ``validation_size``, ``held_out_label`` and ``limit_train`` of a
            data module are read.
    """
    path, split = settings.get("path"), settings.get("train_split", "train")
    rows = _ROWS.get(str(path) if split == "train" else f"{path} {split}")
    if rows is None:
        return None
    held = settings.get("validation_size") or 0
    rows -= int(held * rows) if isinstance(held, float) else held
    if settings.get("held_out_label") is not None:
        rows = rows * 9 // 10
    return min(rows, settings.get("limit_train") or rows)
