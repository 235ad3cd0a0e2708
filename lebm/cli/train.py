"""``lebm fit | validate | test | predict``: the request is read and checked before Lightning takes its
seconds to import.
"""

from __future__ import annotations

from functools import partial

from lebm.cli.data_path import check_flagged_data
from lebm.config.request import read_request
from lebm.config.usage import helped

__all__ = ["fit", "predict", "test", "validate"]


def _run(verb: str, argv: list[str]) -> int:
    if helped(verb, argv):
        return 0
    request = read_request(verb, argv)
    check_flagged_data(request)
    from lebm.cli.training import run

    return run(request)


fit = partial(_run, "fit")  # lebm fit -c RECIPE, or lebm fit --resume RUN
validate = partial(_run, "validate")  # lebm validate RUN, or lebm validate -c RECIPE --ckpt_path FILE
test = partial(_run, "test")  # the same words as validate
predict = partial(_run, "predict")  # the same words as validate
