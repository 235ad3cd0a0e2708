"""``lebm fit | validate | test | predict``: the request is read and checked before Lightning takes its
seconds to import.
"""

from __future__ import annotations

from lebm.cli.data_path import check_flagged_data
from lebm.config.request import read_request
from lebm.config.usage import helped

__all__ = ["fit", "predict", "test", "validate"]


def fit(argv: list[str]) -> int:
    """``lebm fit -c RECIPE`` or ``lebm fit --resume RUN``"""
    return _run("fit", argv)


def validate(argv: list[str]) -> int:
    """``lebm validate RUN`` or ``lebm validate -c RECIPE --ckpt_path FILE``"""
    return _run("validate", argv)


def test(argv: list[str]) -> int:
    """``lebm test RUN`` or ``lebm test -c RECIPE --ckpt_path FILE``"""
    return _run("test", argv)


def predict(argv: list[str]) -> int:
    """``lebm predict RUN``"""
    return _run("predict", argv)


def _run(verb: str, argv: list[str]) -> int:
    if helped(verb, argv):
        return 0
    request = read_request(verb, argv)
    check_flagged_data(request)
    from lebm.cli.training import run

    return run(request)
