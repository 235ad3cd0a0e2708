"""``lebm encode RUN``: the latents of data, once and for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lebm.cli.common import chain_words, load_model, report, target_file
from lebm.cli.flags import add_data, run_parser
from lebm.cli.interpolate import encoded
from lebm.errors import UserError
from lebm.files import replaced

if TYPE_CHECKING:
    from lebm.data.rows import Rows


def encode(argv: list[str]) -> int:
    """``lebm encode RUN``"""
    parser = run_parser(
        "encode",
        "Encode data, and write the latents as .npz: the arrays train, validation and test, with labels and"
        " file names where the data have them. lebm cp latent_mle/vectors prior.yaml --for FILE then makes a"
        " recipe for them.",
    )
    add_data(parser)
    chosen = parser.parse_args(argv)
    target = target_file(chosen, "latents", ".npz")
    if target.suffix != ".npz":
        raise UserError(f"--out {target}: latents are written as .npz")
    model = load_model(chosen)
    import numpy as np

    from lebm.evaluation.reopen import reopen

    data = reopen(chosen.run, chosen.data, model, trust=chosen.trust)
    parts: dict[str, Rows] = {}
    if chosen.split is not None:
        parts["train"] = data.rows(chosen.split)
    else:
        data.setup()  # type: ignore[call-arg]
        names = ("train", "validation", "test")
        parts = {name: data.rows_of(name) for name in names if getattr(data, name) is not None}
    arrays: dict[str, Any] = {}
    for name, rows in parts.items():
        arrays[name] = encoded(chosen, model, rows).cpu().numpy()
        labels = rows.columns.get("label", getattr(rows.split, "labels", None))
        if labels is not None:
            arrays[f"{name}_label"] = np.asarray(labels)
        if rows.paths is not None:
            arrays[f"{name}_name"] = np.asarray(rows.columns["path"])
    with replaced(target) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)
    counts = " and ".join(f"{len(arrays[name])} ({name})" for name in parts)
    chain = chain_words(model, chosen.steps or model.evaluation_steps, "posterior")
    report(f"latents of {data.path}, {counts},", target, chosen, chain)
    return 0
