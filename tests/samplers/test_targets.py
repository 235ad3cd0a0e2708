from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lebm.samplers import Conditional, Langevin, Masked, product, tempered


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().flatten(1).sum(dim=1)


def linear(z: Tensor) -> Tensor:
    return z.flatten(1).sum(dim=1)


STATE = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))


def test_products_add() -> None:
    torch.testing.assert_close(product(standard, linear, linear)(STATE), standard(STATE) + 2 * linear(STATE))
    with pytest.raises(ValueError, match="at least one"):
        product()


def test_tempering_divides_and_keeps_the_base() -> None:
    torch.testing.assert_close(tempered(linear, 4.0)(STATE), linear(STATE) / 4)
    torch.testing.assert_close(
        tempered(linear, 4.0, base=standard)(STATE), linear(STATE) / 4 + 0.75 * standard(STATE)
    )
    with pytest.raises(ValueError, match="temperature must be positive"):
        tempered(linear, 0.0)


def test_a_conditional_is_the_joint_with_the_frozen_part_put_back() -> None:
    frozen = torch.tensor([[True, False, False], [False, True, False]])
    target = Conditional(standard, STATE, frozen)
    part = target.restrict(STATE)
    assert torch.equal(part, STATE[:, ~frozen])
    assert torch.equal(target.complete(part), STATE)
    moved = target.complete(part + 1)
    assert torch.equal(moved[:, frozen], STATE[:, frozen])
    torch.testing.assert_close(target(part + 1), standard(moved))
    with pytest.raises(ValueError, match="the mask has shape"):
        Conditional(standard, STATE, frozen[0])


def test_a_masked_sampler_freezes_exactly_and_moves_the_rest() -> None:
    frozen = [True, False, False, False, True, False]
    end, info = Masked(Langevin(5, 0.3), frozen).run(standard, STATE, torch.Generator().manual_seed(1))
    same = (end == STATE).flatten(1)
    assert torch.equal(same, torch.tensor(frozen).expand(4, 6))
    torch.testing.assert_close(info.displacement, (end - STATE).flatten(1).norm(dim=1))
    with pytest.raises(ValueError, match="the mask has 6 entries but a row of the state has 3"):
        Masked(Langevin(5, 0.3), frozen)(standard, STATE[:, 0])
