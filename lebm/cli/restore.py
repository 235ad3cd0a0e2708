"""``lebm restore RUN``: images of which a part was observed, and draws that agree with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import is_image, load_model, open_data, report, target_file, tell, write_npy
from lebm.cli.flags import add_data, count, run_parser
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


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


def restore(argv: list[str]) -> int:
    """``lebm restore RUN --data FOLDER``"""
    parser = run_parser(
        "restore",
        "Complete images that are partly hidden, noisy or small. A row of the picture is: the image, what is"
        " observed of it, draws of the model that agree with that, their mean, and their standard deviation"
        " per pixel (black 0, white 1).",
    )
    add_data(parser)
    parser.add_argument(
        "--mask",
        default="lower",
        help=f"what is hidden: {', '.join(_HIDDEN)}, or a picture of the size of the images that is black"
        " there (default %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="standard deviation of noise that is added to the observed pixels, in the [-1, 1] range",
    )
    parser.add_argument(
        "--sigma",
        type=float,
        default=1.0,
        help="standard deviation by which a completion may miss an observed pixel (default %(default)g):"
        " models miss neighbouring pixels together, and so their own noise makes completions alike",
    )
    parser.add_argument(
        "--shrink", type=count, default=1, help="observe the image this many times smaller, by averages"
    )
    parser.add_argument("-n", type=count, default=8, help="completions per image (default %(default)s)")
    parser.add_argument(
        "--images", type=count, default=4, help="number of images, spread over the classes (default 4)"
    )
    chosen = parser.parse_args(argv)
    if not 0 <= chosen.noise < math.inf:
        raise UserError(f"--noise {chosen.noise:g}: must be finite and at least 0")
    if not 0 < chosen.sigma < math.inf:
        raise UserError(f"--sigma {chosen.sigma:g}: must be finite and above 0")
    if chosen.mask not in _HIDDEN and not Path(chosen.mask).is_file():
        raise UserError(f"--mask {chosen.mask}: neither a file nor one of {', '.join(_HIDDEN)}")
    model = load_model(chosen)
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    from lebm.conditions import Observed
    from lebm.plots.grids import image_grid, write_png
    from lebm.samplers.noise import Noise

    rows = open_data(chosen, model, None).spread(chosen.images, chosen.seed)
    x = rows.all()
    if model.sentences is not None or not is_image(x):
        raise UserError(f"{chosen.run}: restore is for models of images")
    if any(size % chosen.shrink for size in x.shape[2:]):
        raise UserError(f"--shrink {chosen.shrink}: does not divide images of {x.shape[3]}x{x.shape[2]}")
    small = avg_pool2d(x, chosen.shrink)
    seen = _mask(chosen.mask, *small.shape[2:])
    index = torch.tensor(rows.columns["index"])
    dirt = Noise.samples(chosen.seed, "restore", "noise", index=index).normal(small.shape)
    small = torch.where(seen, small + chosen.noise * dirt, 0.0)
    parts, acceptance, ess = [], [], []
    for start in range(0, len(x), _AT_ONCE):
        given = Observed(
            small[start : start + _AT_ONCE],
            seen,
            math.hypot(chosen.sigma / chosen.shrink, chosen.noise),  # an average misses by less
            None if chosen.shrink == 1 else lambda y: avg_pool2d(y, chosen.shrink),
        )
        number, noise = len(given.x) * chosen.n, Noise([(chosen.seed, "restore", start)])
        draws = model.sample_given(number, given, steps=chosen.steps, generator=noise)
        parts.append(torch.cat([model.decode(z).cpu() for z in draws.z.split(chosen.batch_size)]))
        acceptance.append(draws.acceptance)
        ess.append(draws.ess)
    made = torch.cat(parts).unflatten(0, (len(x), chosen.n))
    mean, spread = made.mean(dim=1), made.std(dim=1, correction=0)
    form = ".npy" if (chosen.out or Path()).suffix == ".npy" else ".png"
    target = target_file(chosen, "restored", form)
    if form == ".npy":
        write_npy(target, made)
    else:
        shown = interpolate(small, size=x.shape[2:])  # each pixel as a square
        table = torch.cat([torch.stack([x, shown], 1), made, torch.stack([mean, 2 * spread - 1], 1)], 1)
        write_png(target, image_grid(table.flatten(0, 1), table.shape[1]))
    what = f"{chosen.n} completions of {len(x)} images of {rows.source}"
    report(what, target, chosen, f"mask {chosen.mask}, sigma {chosen.sigma:g}, ")
    hidden = ~seen.expand(small.shape) if chosen.shrink == 1 and not seen.all() else torch.ones_like(x).bool()
    where = "a hidden pixel" if chosen.shrink == 1 and not seen.all() else "a pixel"
    tell(
        f"lebm: squared error {_mean_of((mean - x).square(), hidden):.4f} {where} of their mean, and"
        f" {_mean_of((made - x[:, None]).square().mean(dim=1), hidden):.4f} of one; acceptance"
        f" {sum(acceptance) / len(acceptance):.2f}, at least {min(ess):.0f} effective particles an image"
    )
    return 0


def _mean_of(values: Tensor, where: Tensor) -> float:
    return float(values[where].mean())


def _mask(name: str, height: int, width: int) -> Tensor:
    """What is observed, ``(1, H, W)`` of ``bool``, by the name of the hidden part or a picture."""
    import numpy as np
    import torch
    from PIL import Image

    if name in _HIDDEN:
        seen = torch.ones(1, height, width, dtype=torch.bool)
        top, bottom, left, right = _HIDDEN[name]
        down = slice(round(top * height), round(bottom * height))
        seen[:, down, round(left * width) : round(right * width)] = False
        return seen
    try:
        with Image.open(name) as picture:
            seen = torch.from_numpy(np.asarray(picture.convert("L")) >= 128)[None]
    except (OSError, ValueError) as error:
        raise UserError(f"--mask {name}: not a picture that can be read ({error})") from error
    if seen.shape[1:] != (height, width):
        raise UserError(
            f"--mask {name}: has {seen.shape[2]}x{seen.shape[1]} pixels, but the images have {width}x{height}"
        )
    if not seen.any():
        raise UserError(f"--mask {name}: is black everywhere, so that nothing is observed")
    return seen
