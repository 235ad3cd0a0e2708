"""Conditional draws: ``lebm condition`` fits classes on latents, ``lebm restore`` completes images."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from lebm.cli.common import Opened, beside, count, free, is_image, run_parser
from lebm.errors import UserError, tell
from lebm.files import sha256

if TYPE_CHECKING:
    from torch import Tensor

    from lebm.conditions import Condition

_FILE = "classes.safetensors"
_HELD_OUT = 10  # every tenth row measures the classifier
_HIDDEN = {
    "lower": (0.5, 1, 0, 1),
    "upper": (0, 0.5, 0, 1),
    "left": (0, 1, 0, 0.5),
    "right": (0, 1, 0.5, 1),
    "box": (0.25, 0.75, 0.25, 0.75),
    "none": (0, 0, 0, 0),
}
"""The hidden part of an image by name: top, bottom, left and right, as shares of its sides."""
_AT_ONCE = 8  # images


def condition(argv: list[str]) -> None:
    """Run ``lebm condition RUN --data FOLDER``."""
    parser = run_parser(
        "condition",
        "Fit a classifier on the latents of labelled data, in seconds. It is stored beside the run, where"
        " lebm sample RUN --class 7 finds it.",
        split="train",
        out="output file (default: classes.safetensors in the run folder)",
    )
    chosen = parser.parse_args(argv)
    target = free(chosen.out or beside(chosen.run, _FILE), chosen.force)
    run = Opened(chosen)
    import numpy as np
    import torch

    from lebm.checkpoint import write_model_file
    from lebm.models import LatentClassifier

    rows = run.rows()
    labels = rows.columns.get("label", [])
    known = sorted({label for label in labels if label >= 0})
    if len(known) < 2:
        raise UserError(f"{rows.source}: a classifier needs labels of at least two classes")
    rows = rows.chosen(np.flatnonzero(np.asarray(labels) >= 0))
    columns, z = rows.columns, run.each(run.model.encode, rows).to(run.model.device)
    names = dict(zip(columns["label"], columns.get("class_name", columns["label"]), strict=True))
    words = [str(names[label]) for label in known]
    y = torch.tensor([known.index(label) for label in columns["label"]], device=z.device)
    test = torch.arange(len(z), device=z.device) % _HELD_OUT == 0
    classifier = LatentClassifier.fit(z[~test], y[~test], classes=len(known), seed=chosen.seed)
    accuracy = float((classifier(z[test].float()).argmax(dim=1) == y[test]).double().mean())
    facts = {"names": words, "data": rows.source, "rows": len(z), "accuracy": accuracy}
    write_model_file(target, classifier.cpu(), {**facts, **_weights(run)})
    tell(
        f"lebm: classifier of {len(known)} classes in {target} (latents of {len(z)} rows of {rows.source},"
        f" right on {accuracy:.1%} of {int(test.sum())} held-out rows)"
    )
    word = words[0] if words[0].isalnum() else f"'{words[0]}'"
    tell(f"lebm: next: lebm sample {chosen.run} --class {word}")


def _weights(run: Opened) -> dict[str, str | None]:
    """Return the identity of the weights that a classifier is fitted to."""
    from lebm.checkpoint import find_checkpoint

    file = find_checkpoint(run.chosen.run)
    return {"weights": run.model.loaded_weights, "checkpoint_sha256": sha256(file)}


def class_condition(run: Opened) -> Condition:
    """Return the condition of ``--class``, from the classifier beside the run.

    Raises:
        UserError: if the classifier is missing or fitted to other weights, or a class is unknown.
    """
    from lebm import checkpoint
    from lebm.conditions import parsed
    from lebm.models import LatentClassifier

    chosen = run.chosen
    file, again = chosen.classifier or beside(chosen.run, _FILE), f"lebm condition {chosen.run} --data FOLDER"
    if not file.exists():
        raise UserError(f"{file}: no such classifier for --class; fit one with {again}")
    content = checkpoint.read(file)
    facts = content.get("facts", {})
    classifier = checkpoint.rebuilt(file, content, LatentClassifier, map_location=run.model.device)
    if any(facts.get(name) != value for name, value in _weights(run).items()):
        message = f"fitted to other weights than {chosen.run} has; fit it again with {again} --force"
        raise UserError(f"{file}: {message}")
    try:
        return parsed(chosen.classes, classifier, facts["names"])
    except ValueError as error:
        raise UserError(f"--class {chosen.classes}: {error}") from error


def restore(argv: list[str]) -> None:
    """Run ``lebm restore RUN --data FOLDER``."""
    parser = run_parser(
        "restore",
        "Complete images that are partly hidden, noisy or small. A row of the picture shows the image, its"
        " observed part, completions drawn from the model, their mean, and their standard deviation per"
        " pixel (black 0, white 1).",
        steps="as in training",
    )
    mask = f"hidden part: {', '.join(_HIDDEN)}, or a picture that is black there"
    noise = "standard deviation of noise added to the observed pixels, in the [-1, 1] range"
    sigma = "standard deviation of the observed pixels about a completion"
    shrink = "factor by which the observed image is smaller, by averages"
    parser.flag("--mask", f"{mask} (default: lower, or none with --shrink)")
    parser.flag("--noise", noise, type=float, default=0)
    parser.flag("--sigma", sigma, type=float, default=1)
    parser.flag("--shrink", shrink, type=count, default=1)
    parser.flag("-n", "completions per image", type=count, default=8)
    parser.flag("--images", "number of images, spread over the classes", type=count, default=4)
    chosen = parser.parse_args(argv)
    if not 0 <= chosen.noise < math.inf:
        raise UserError(f"--noise {chosen.noise:g}: must be finite and at least 0")
    if not 0 < chosen.sigma < math.inf:
        raise UserError(f"--sigma {chosen.sigma:g}: must be finite and above 0")
    chosen.mask = chosen.mask or ("lower" if chosen.shrink == 1 else "none")
    if chosen.mask not in _HIDDEN and not Path(chosen.mask).is_file():
        raise UserError(f"--mask {chosen.mask}: neither a file nor one of {', '.join(_HIDDEN)}")
    run = Opened(chosen)
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    from lebm.conditions import Observed
    from lebm.plots import image_grid
    from lebm.samplers.noise import Noise

    rows = run.rows().spread(chosen.images, chosen.seed)
    x = rows.all()
    if run.model.sentences is not None or not is_image(x):
        raise UserError(f"{chosen.run}: lebm restore takes models of images only")
    if any(size % chosen.shrink for size in x.shape[2:]):
        raise UserError(f"--shrink {chosen.shrink}: does not divide images of {x.shape[3]}x{x.shape[2]}")
    small = avg_pool2d(x, chosen.shrink)
    seen = _mask(chosen.mask, *small.shape[2:])
    index = torch.tensor(rows.columns["index"])
    dirt = Noise.samples(chosen.seed, "restore", "noise", index=index).normal(small.shape)
    small = torch.where(seen, small + chosen.noise * dirt, 0.0)
    draws = []
    for start in range(0, len(x), _AT_ONCE):
        given = Observed(
            small[start : start + _AT_ONCE],
            seen,
            math.hypot(chosen.sigma / chosen.shrink, chosen.noise),  # an average misses by less
            None if chosen.shrink == 1 else lambda y: avg_pool2d(y, chosen.shrink),
        )
        number, source = len(given.x) * chosen.n, Noise([(chosen.seed, "restore", start)])
        draws.append(run.model.sample_given(number, given, steps=chosen.steps, generator=source))
    made = torch.cat([run.decoded(part.z) for part in draws]).unflatten(0, (len(x), chosen.n))
    mean, spread = made.mean(dim=1), made.std(dim=1, correction=0)
    shown = interpolate(small, size=x.shape[2:])  # each pixel as a square
    table = torch.cat([torch.stack([x, shown], 1), made, torch.stack([mean, 2 * spread - 1], 1)], 1)
    target = run.write(
        "restored", made.flatten(0, 1), lambda _: image_grid(table.flatten(0, 1), table.shape[1])
    )
    what = f"{chosen.n} completions of {len(x)} images of {rows.source}"
    run.report(what, target, f"mask {chosen.mask}, sigma {chosen.sigma:g}")
    partly = chosen.shrink == 1 and not seen.all()
    hidden = ~seen.expand(small.shape) if partly else torch.ones_like(x).bool()
    of_mean, of_one = (mean - x).square()[hidden], (made - x[:, None]).square().mean(dim=1)[hidden]
    tell(
        f"lebm: squared error per {'hidden pixel' if partly else 'pixel'}: {float(of_mean.mean()):.4f} of the"
        f" mean, {float(of_one.mean()):.4f} of a completion; acceptance"
        f" {fmean(part.acceptance for part in draws):.2f}, at least"
        f" {min(part.ess for part in draws):.0f} effective particles per image"
    )


def _mask(name: str, height: int, width: int) -> Tensor:
    """Return the observed pixels, ``(1, H, W)`` ``bool``, from the name of the hidden part or a picture."""
    import numpy as np
    import torch
    from PIL import Image

    if name in _HIDDEN:
        seen = torch.ones(1, height, width, dtype=torch.bool)
        top, bottom, left, right = _HIDDEN[name]
        down = slice(round(top * height), round(bottom * height))
        seen[:, down, round(left * width) : round(right * width)] = False
        return seen
    with Image.open(name) as picture:
        seen = torch.from_numpy(np.asarray(picture.convert("L").resize((width, height), 0)) >= 128)[None]
    if not seen.any():
        raise UserError(f"--mask {name}: black everywhere, so nothing is observed; leave a white part")
    return seen
