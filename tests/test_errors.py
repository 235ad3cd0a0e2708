"""Plain data of strangers are bounded."""

from __future__ import annotations

import pytest

from lebm.errors import UserError, check_size


def test_shared_lists_are_counted_as_if_written_out_and_levels_are_bounded() -> None:
    shared: list = [1] * 10
    for _ in range(3):
        shared = [shared] * 10
    check_size(shared, "a.yaml")  # 10,000 leaves and 1,111 lists
    with pytest.raises(UserError, match=r"a.yaml: more than 100000 values"):
        check_size([shared] * 10, "a.yaml")
    deep: object = 1
    for _ in range(64):
        deep = {"a": deep}
    check_size(deep, "a.yaml")
    with pytest.raises(UserError, match=r"a.yaml: nested too deeply \(limit 64 levels\)"):
        check_size((deep,), "a.yaml")
