"""Inference by posterior chains alone, without an encoder."""

from typing import Any

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.inference.base import Inference, Inferred, PosteriorChain
from lebm.samplers.chains import of_all_processes
from lebm.samplers.noise import RandomSource

_PIECE = 4096
"""Number of rows by which the memory grows."""


class ShortRun(Inference):
    """Inference by the end of a short posterior chain from the reference, detached (Pang et al. 2020, eq. 8).

    This is the inference of papers 1 and 2, and the default of every method with a ``posterior_sampler``. The
    chain is finite, so its latents lie between the reference and the posterior.

    Example:
        >>> import torch
        >>> from lebm.inference import PosteriorChain, ShortRun
        >>> chain = PosteriorChain(run=lambda start, noise: torch.ones(4, 2), reference=None)
        >>> ShortRun().infer(torch.zeros(4, 8), None, chain, noise=None).z.shape
        torch.Size([4, 2])
    """

    def __init__(self) -> None:
        super().__init__()

    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        return Inferred(posterior.run(None, noise))


class Remembered(Inference):
    """Inference by a posterior chain from the row's own last latents, detached.

    The steps add up over epochs, so the chains reach the posterior if the model changes slowly, as with the
    warm starts of alternating back-propagation (Han et al. 2017). New rows, and all rows outside training,
    start at the reference, so the model needs many ``evaluation_steps``.

    The memory holds ``4 * latent_dim`` bytes per training row in float32, in every process, and is part of
    the ``state_dict``. Rows are identified by ``batch["index"]``. Flips double the memory, because a flipped
    image has another posterior.

    Raises:
        UserError: in training, for a batch without ``"index"``, or for latents of another size than in
            memory.

    Example:
        >>> import torch
        >>> from lebm.inference import PosteriorChain, Remembered
        >>> part = Remembered()
        >>> chain = PosteriorChain(lambda start, noise: start + 1, lambda noise: torch.zeros(2, 1))
        >>> rows = torch.tensor([0, 1])
        >>> ends = [part.infer(torch.zeros(2, 8), rows, chain, noise=None).z for _ in range(3)]
        >>> [end.flatten().tolist() for end in ends]
        [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    """

    def __init__(self) -> None:
        super().__init__()
        self._memory = torch.zeros(0)  # (rows, latent_dim); infinite where a row was never seen

    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        if index is None:
            raise UserError('Remembered needs the numbers of the rows: batches with "index", (B,)')
        index = index.to(x.device)
        known = self._recall(index, posterior.reference(noise))
        end = posterior.run(known, noise)
        self._store(*of_all_processes(index, end))
        return Inferred(end)

    def _recall(self, index: Tensor, fresh: Tensor) -> Tensor:
        """Return the stored latents of the rows, and ``fresh: (B, latent_dim)`` for new rows."""
        memory = self._memory = self._memory.to(fresh)
        if not memory.numel():
            return fresh
        if memory.shape[1] != fresh.shape[1]:
            raise UserError(
                f"the memory of the chains holds latents of {memory.shape[1]} coordinates, but the model has"
                f" {fresh.shape[1]}"
            )
        known = memory[index.clamp(max=len(memory) - 1)]
        new = (index >= len(memory)) | ~torch.isfinite(known).all(dim=1)
        return torch.where(new[:, None], fresh, known)

    def _store(self, index: Tensor, end: Tensor) -> None:
        missing = int(index.max()) + 1 - len(self._memory)
        if missing > 0:
            rows = -(-missing // _PIECE) * _PIECE
            self._memory = torch.cat(
                [self._memory.reshape(-1, end.shape[1]), end.new_full((rows, end.shape[1]), torch.inf)]
            )
        self._memory[index] = end

    # Not a buffer: data-parallel wrappers would send it around at every step, and its size changes.

    def get_extra_state(self) -> dict[str, Any]:
        return {"memory": self._memory.cpu()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        memory = state["memory"]
        if not isinstance(memory, Tensor) or memory.dim() not in (1, 2) or not memory.is_floating_point():
            raise UserError("the memory of the chains is not a table of latents")
        self._memory = memory.clone()
