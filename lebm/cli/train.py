"""``lebm fit | validate | test | predict``: the request is read and checked before Lightning takes its
seconds to import.
"""

from __future__ import annotations

import functools

from lebm.cli.common import check_flagged_data
from lebm.config.request import helped, read_request


def _run(verb: str, argv: list[str]) -> int:
    if helped(verb, argv):
        return 0
    request = read_request(verb, argv)
    check_flagged_data(request)
    from lebm.cli.training import run

    return run(request)


fit, validate, test, predict = (
    functools.partial(_run, verb) for verb in ("fit", "validate", "test", "predict")
)
