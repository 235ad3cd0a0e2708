"""Random numbers computed from counters: one draw for all rows of a process, without any generator.

:class:`CounterNoise` keeps every promise of :class:`~lebm.samplers.Noise` about layouts, and gives other
numbers. On a GPU a draw is one kernel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from types import FunctionType

import torch
from torch import Tensor

from lebm.samplers.noise import Noise, shards_of_rank
from lebm.samplers.schedules import on_device

__all__ = ["CounterNoise", "philox"]

WORD = 2**32 - 1
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
"""Random bits of a uniform number; with more it could be rounded up to 1."""

FUSED = ("cuda",)
"""Types of devices on which a draw is compiled."""

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Four, key: tuple[Tensor, Tensor]) -> Four:
    """Philox4x32-10 of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: four words, int64 tensors with values in [0, 2**32) whose shapes broadcast.
        key: two words, likewise.

    Returns:
        Four random words of the broadcast shape, int64 with values in [0, 2**32).

    Example:
        >>> import torch
        >>> from lebm.samplers.counter import philox
        >>> zero = torch.tensor(0)
        >>> [f"{word:08x}" for word in philox((zero, zero, zero, zero), (zero, zero))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    first, second, third, fourth = counter
    for turn in range(_ROUNDS):
        # A product may become negative; the bits of its two halves are right all the same. The lower half is
        # cut out of its product one round later.
        low, high = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first = ((high >> 32) ^ second ^ (key[0] + turn * _WEYL[0])) & WORD
        third = ((low >> 32) ^ fourth ^ (key[1] + turn * _WEYL[1])) & WORD
        second, fourth = high, low
    return first, second & WORD, third, fourth & WORD


class CounterNoise(Noise):
    """Standard normals and uniforms for the rows of this process, each computed from where it belongs.

    A number is a function of the key, the stream, the row in the stream, the step and the element of the row.
    Streams and their rows are those of :class:`~lebm.samplers.Noise`, and the draws of an object are numbered
    in turn: a draw of ten steps gives the numbers of ten draws of one step. There is nothing to store, and
    all rows are drawn at once on the device of the chain. On a GPU ``torch.compile`` makes one kernel of a
    draw, which takes seconds per kind of draw.

    The random bits (Philox4x32-10, 32 bits of counter each for stream, row, step and element) are equal on
    every machine. The normals are made from them by the method of Box and Muller, and are equal up to
    rounding. In single precision their absolute value is at most 6.7, in double precision at most 8.6.

    Args:
        key: strings and integers that name the purpose.
        streams: one integer per stream, taken modulo 2**32; a list, or a tensor ``(k,)`` on any device.

    Raises:
        ValueError: if there are no streams.

    Example:
        >>> from lebm.samplers import CounterNoise
        >>> whole = CounterNoise.shards(0, "prior", shards=2).normal((4, 3))
        >>> second = CounterNoise.shards(0, "prior", shards=2, rank=1, world_size=2).normal((2, 3))
        >>> bool((whole[2:] == second).all())  # the second of two processes draws the second half
        True
    """

    def __init__(self, key: tuple[object, ...], streams: Sequence[int] | Tensor) -> None:
        super().__init__([key])
        if not len(streams):
            raise ValueError("CounterNoise needs at least one stream")
        self._numbers_of_streams = streams
        self._steps_drawn = 0
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def shards(cls, *key: object, shards: int = 8, rank: int = 0, world_size: int = 1) -> CounterNoise:
        """As :meth:`lebm.samplers.Noise.shards`."""
        return cls(key, shards_of_rank(shards, rank, world_size))

    @classmethod
    def samples(cls, *key: object, index: Tensor | Sequence[int]) -> CounterNoise:
        """As :meth:`lebm.samplers.Noise.samples`; ``index`` may be on the device, and stays there."""
        return cls((*key, "sample"), index)

    def _draw(
        self, kind: str, shape: Sequence[int], steps: int | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        count = 1 if steps is None else steps
        event = tuple(shape[1:])
        numbers = _fused(kind, dtype) if device.type in FUSED else functools.partial(_numbers, kind, dtype)
        with torch.inference_mode(False), torch.no_grad():
            key, streams = self._on(device)
            turns = torch.arange(self._steps_drawn, self._steps_drawn + count, device=device)
            drawn = numbers(key, streams, turns, shape[0], math.prod(event))
        self._steps_drawn += count
        return drawn.reshape(*(() if steps is None else (steps,)), shape[0], *event)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The two words of the key and the numbers of the streams, brought to a device once."""
        if device not in self._constants:
            streams, seed = self._numbers_of_streams, self.seeds[0]
            like = torch.empty(0, dtype=torch.int64, device=device)
            if isinstance(streams, Tensor):
                # A copy, because torch.compile makes another graph for a tensor of the inference mode.
                own = streams.to(device, torch.int64, non_blocking=True, copy=True)
            else:
                own = on_device(streams, like)
            self._constants[device] = on_device([seed & WORD, seed >> 32], like), own
        return self._constants[device]


@functools.cache
def _fused(kind: str, dtype: torch.dtype) -> Callable[..., Tensor]:
    """One graph for all sizes, with a few more for sizes of 1 and for sizes that are equal by chance.

    Every kind has its own code, because torch limits the graphs of a piece of code. Torch also makes a graph
    per mode (inference, gradients, mixed precision), so the modes are always the same here.
    """
    own = FunctionType(_numbers.__code__.replace(), globals(), _numbers.__name__)
    compiled = torch.compile(own, dynamic=True)

    def draw(key: Tensor, *arguments: Tensor | int) -> Tensor:
        with torch.autocast(key.device.type, enabled=False):
            return compiled(kind, dtype, key, *arguments)

    return draw


def _numbers(
    kind: str, dtype: torch.dtype, key: Tensor, streams: Tensor, steps: Tensor, rows: int, size: int
) -> Tensor:
    """``(steps, rows, size)`` numbers for the draws ``steps: (s,)``."""
    per_block = 2 if dtype == torch.float64 else 4
    blocks = -(-size // per_block)
    row = torch.arange(rows, device=key.device)
    stream = ((row + 1) * len(streams) - 1) // rows
    counter = (
        torch.arange(blocks, device=key.device),
        steps[:, None, None],
        (row - stream * rows // len(streams))[:, None],
        (streams[stream] & WORD)[:, None],
    )
    words = torch.broadcast_tensors(*philox(counter, (key[0], key[1])))
    parts = _uniforms(words, dtype) if kind == "uniform" else _normals(words, dtype)
    return torch.cat(parts, dim=-1)[..., :size].contiguous()  # other strides cost a chain another graph


def _uniforms(words: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Numbers on [0, 1): one per word, and in double precision one per two words."""
    if dtype == torch.float64:
        return [_of_two(words[0], words[1]) * 2.0**-53, _of_two(words[2], words[3]) * 2.0**-53]
    bits = _BITS[dtype]
    return [(word >> (32 - bits)).to(dtype) * 2.0**-bits for word in words]


def _normals(words: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Box and Muller (1958): ``sqrt(-2 log u) cos(2 pi v)`` and the same with the sine, u on (0, 1]."""
    if dtype == torch.float64:
        pairs = [(_of_two(words[0], words[1]), _of_two(words[2], words[3]))]
        smallest = 2.0**-53
    else:
        first, second, third, fourth = (word.to(torch.float32) for word in words)
        pairs = [(first, second), (third, fourth)]
        smallest = 2.0**-32
    parts = []
    for chance, turn in pairs:
        radius = (-2.0 * ((chance + 1.0) * smallest).log()).sqrt()
        angle = turn * (2.0 * math.pi * smallest)
        parts += [radius * angle.cos(), radius * angle.sin()]
    return [part.to(dtype) for part in parts]


def _of_two(first: Tensor, second: Tensor) -> Tensor:
    """53 random bits of two words, a whole number in double precision."""
    return ((first >> 5) * 2**26 + (second >> 6)).to(torch.float64)
