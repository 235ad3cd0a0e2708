"""``lebm interpolate RUN "SENTENCE" "SENTENCE"``: sentences on the way from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lebm.cli.common import count, load_model, run_parser, say
from lebm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["between", "interpolate"]


def interpolate(argv: list[str]) -> int:
    """``lebm interpolate RUN "SENTENCE" "SENTENCE"``"""
    parser = run_parser(
        "interpolate",
        "Sentences on the way from one to another: both encoded, the latents between them decoded.",
    )
    parser.add_argument("sentence", help="where the way begins")
    parser.add_argument("other", help="where it ends")
    parser.add_argument(
        "-n", type=count, default=8, help="number of sentences, both ends included (default 8)"
    )
    chosen = parser.parse_args(argv)
    if chosen.n < 2:
        raise UserError(f"-n {chosen.n}: a way has two ends, so give at least 2")
    for sentence in (chosen.sentence, chosen.other):
        if not sentence.strip():
            raise UserError("an empty sentence cannot be encoded")
    model = load_model(chosen)
    from lebm.samplers.noise import Noise

    likelihood = model.sentences
    if likelihood is None:
        raise UserError(f"{chosen.run}: interpolate is for models of sentences, and this is none")
    x = likelihood.read([chosen.sentence, chosen.other]).to(model.device)
    seed = model.seed if chosen.seed is None else chosen.seed
    noise = Noise.samples(seed, "encode", index=range(2))
    first, last = model.encode(x, steps=chosen.steps, generator=noise)
    say(likelihood.spell(model.decode(between(first, last, chosen.n))), chosen.out)
    return 0


def between(first: Tensor, last: Tensor, n: int) -> Tensor:
    r"""``n`` latents on the great circle from one to the other, ``(n, d)``; both ``(d,)``, n at least 2.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)\, a + \sin(t \theta)\, b}{\sin\theta}

    with the angle :math:`\theta` between them. Unlike those on a straight line they keep about the length
    that draws of a prior near N(0, I) have."""
    import torch

    share = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device).unsqueeze(1)
    cosine = (first @ last / (first.norm() * last.norm())).clamp(-1, 1)
    angle = cosine.arccos()
    if angle.sin() < 1e-4:  # the same or opposite directions, between which there is no one circle
        return (1 - share) * first + share * last
    return (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
