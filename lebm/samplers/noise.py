"""Random numbers that do not depend on the distribution of a batch over processes.

Each stream of a :class:`Noise` is seeded from a key that names its purpose, never from a process. Training
uses one stream per *noise shard*, a fixed piece of the global batch, and evaluation one stream per sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def keyed_seed(*key: object) -> int:
    """Return 63 bits that depend on every part of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """Keyed streams of standard normals and uniforms for the rows of this process.

    Streams are sequential, so two calls give different numbers; two objects with equal keys give equal
    numbers. Stream ``i`` of ``k`` has the rows ``floor(i n / k)`` to ``floor((i+1) n / k) - 1`` of ``n``.

    Args:
        keys: one tuple of strings and integers per stream.

    Raises:
        ValueError: without keys.

    Example:
        >>> from lebm.samplers import Noise
        >>> whole = Noise.shards(0, "prior", shards=2).normal((4, 3))
        >>> first = Noise.shards(0, "prior", shards=2, rank=0, world_size=2).normal((2, 3))
        >>> bool((whole[:2] == first).all())  # the first of two processes draws the first half
        True
    """

    def __init__(self, keys: Sequence[tuple[object, ...]]) -> None:
        if not keys:
            raise ValueError("Noise needs at least one stream")
        self.seeds = [keyed_seed(*key) for key in keys]
        self._on_host = False
        self._generators: list[torch.Generator] | None = None

    @classmethod
    def shards(cls, *key: object, shards: int = 8, rank: int = 0, world_size: int = 1) -> Noise:
        """Return the streams of one process's part of a global batch.

        Args:
            key: purpose of the numbers, for example ``(seed, "prior", epoch, batch)``.
            shards: number of pieces of the global batch, at least 1; ``world_size`` must divide it.
            rank: rank of this process, ``0 <= rank < world_size``.
            world_size: number of processes.

        Raises:
            ValueError: if ``world_size`` does not divide ``shards``.
        """
        if shards < 1 or shards % world_size:
            raise ValueError(
                f"the number of processes ({world_size}) must divide the number of noise shards ({shards})"
            )
        own = shards // world_size
        return cls([(*key, shard) for shard in range(rank * own, (rank + 1) * own)])

    @classmethod
    def samples(cls, *key: object, index: Tensor | Sequence[int]) -> Noise:
        """Return one stream per sample, keyed by its ``index`` ``(B,)`` in the data set."""
        numbers = index.tolist() if isinstance(index, Tensor) else list(index)
        noise = cls([(*key, "sample", int(number)) for number in numbers])
        noise._on_host = True  # which is faster for many streams with few rows each
        return noise

    def _draw(
        self,
        draw: Callable[..., Tensor],
        shape: Sequence[int],
        steps: int | None,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Tensor:
        if self._generators is None:
            source = "cpu" if self._on_host else device
            self._generators = [torch.Generator(source).manual_seed(seed) for seed in self.seeds]
        rows, streams = shape[0], self._generators
        lead = () if steps is None else (steps,)
        pieces = []
        for position, generator in enumerate(streams):
            mine = (position + 1) * rows // len(streams) - position * rows // len(streams)
            size = (*lead, mine, *shape[1:])
            pieces.append(draw(size, generator=generator, dtype=dtype, device=generator.device))
        drawn = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=len(lead))
        return drawn.to(device)

    def normal(
        self,
        shape: Sequence[int],
        *,
        steps: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw standard normals ``(rows, *event)``, or ``(steps, rows, *event)`` for a whole chain."""
        return self._draw(torch.randn, shape, steps, dtype, device)

    def uniform(
        self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Draw uniforms on [0, 1), ``(rows, *event)``."""
        return self._draw(torch.rand, shape, None, dtype, device)


RandomSource = torch.Generator | Noise | None
"""The type of ``generator`` in every sampler; ``None`` is torch's default generator, as in torch itself."""


def normal(
    source: RandomSource,
    shape: Sequence[int],
    *,
    steps: int | None = None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Draw standard normals from any :data:`RandomSource`, see :meth:`Noise.normal`."""
    if isinstance(source, Noise):
        return source.normal(shape, steps=steps, dtype=dtype, device=device)
    full = tuple(shape) if steps is None else (steps, *shape)
    return torch.randn(full, generator=source, dtype=dtype, device=device)


def uniform(
    source: RandomSource, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """Draw uniforms on [0, 1) from any :data:`RandomSource`, see :meth:`Noise.uniform`."""
    if isinstance(source, Noise):
        return source.uniform(shape, dtype=dtype, device=device)
    return torch.rand(tuple(shape), generator=source, dtype=dtype, device=device)
