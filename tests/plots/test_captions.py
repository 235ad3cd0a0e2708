"""Pictures with texts, and heat maps."""

from __future__ import annotations

import numpy as np
import torch

from lebm.plots import captioned_grid, heat


def test_each_image_is_above_its_own_text() -> None:
    x = torch.linspace(-1, 1, 4).reshape(4, 1, 1, 1).expand(4, 3, 48, 48)
    picture = captioned_grid([x, -x], ["a", "b" * 100, "c", ""], columns=3)
    assert picture.shape == (2 * (96 + 14 + 6) + 6, 3 * (192 + 6) + 6, 3)
    levels = ((x[:, 0, 0, 0] + 1) * 127.5).round().numpy().astype(np.uint8)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
        top, left = 6 + row * 116, 6 + column * 198
        assert (picture[top : top + 96, left : left + 96] == levels[number]).all()
        assert (picture[top : top + 96, left + 96 : left + 192] == 255 - levels[number]).all()
        below = picture[top + 96 : top + 110, left : left + 192]
        assert (below < 128).any() == (number < 3)
    assert (picture[6 + 96 : 6 + 110, 6 + 2 * 198 - 6 : 6 + 2 * 198] == 255).all()  # a long text is cut


def test_heat_has_a_fixed_scale() -> None:
    colours = heat(torch.tensor([[[0.0, 1.0, 2.0, 3.0, 9.0]]]), largest=3.0)[0, :, 0].T.tolist()
    assert colours == [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1], [1, 1, 1]]
