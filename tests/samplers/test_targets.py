from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lebm.samplers import Langevin, Masked


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().flatten(1).sum(dim=1)


STATE = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))


def test_a_masked_sampler_freezes_exactly_and_moves_the_rest() -> None:
    frozen = [True, False, False, False, True, False]
    end, info = Masked(Langevin(5, 0.3), frozen).run(standard, STATE, torch.Generator().manual_seed(1))
    same = (end == STATE).flatten(1)
    assert torch.equal(same, torch.tensor(frozen).expand(4, 6))
    torch.testing.assert_close(info.displacement, (end - STATE).flatten(1).norm(dim=1))
    with pytest.raises(ValueError, match="the mask has 6 entries but a row of the state has 3"):
        Masked(Langevin(5, 0.3), frozen)(standard, STATE[:, 0])
