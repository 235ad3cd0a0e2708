"""``lebm condition RUN``: a classifier on the latents of labelled data, for ``lebm sample RUN --class``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lebm.cli.common import encode_noise, home, load_model, open_data, tell
from lebm.cli.flags import add_data, run_parser
from lebm.errors import UserError

if TYPE_CHECKING:
    from lebm.conditions import Condition
    from lebm.estimators.latent_model import LatentModel


_HELD_OUT = 10  # every tenth row measures the classifier


def condition(argv: list[str]) -> int:
    """``lebm condition RUN --data FOLDER``"""
    parser = run_parser(
        "condition",
        "Fit a classifier on the latents of labelled data, in seconds. It is stored beside the run, and lebm"
        " sample RUN --class 7 draws by it.",
    )
    add_data(parser, split=False)
    parser.add_argument("--split", default="train", help="split of the data (default %(default)s)")
    chosen = parser.parse_args(argv)
    target = chosen.out or _file(chosen.run)
    if target.exists() and not chosen.force:
        raise UserError(f"{target} exists; add --force to fit the classifier again, or choose another --out")
    model = load_model(chosen)
    import numpy as np
    import torch

    from lebm.checkpoint import find_checkpoint, write_model_file
    from lebm.files import sha256
    from lebm.models import LatentClassifier

    rows = open_data(chosen, model, None)
    labels = rows.columns.get("label")
    known = [] if labels is None else sorted({label for label in labels if label >= 0})
    if labels is None or len(known) < 2:
        raise UserError(f"{rows.source}: a classifier needs labels of at least two classes")
    rows = rows.chosen(np.flatnonzero(np.asarray(labels) >= 0))
    columns, steps = rows.columns, chosen.steps or model.evaluation_steps
    z = torch.cat(
        [
            model.encode(x.to(model.device), steps=steps, generator=encode_noise(chosen.seed, index))
            for index, x in rows.batches(chosen.batch_size)
        ]
    )
    names = dict(zip(columns["label"], columns.get("class_name", columns["label"]), strict=True))
    y = torch.tensor([known.index(label) for label in columns["label"]], device=z.device)
    test = torch.arange(len(z), device=z.device) % _HELD_OUT == 0
    classifier = LatentClassifier.fit(z[~test], y[~test], classes=len(known), seed=chosen.seed)
    accuracy = float((classifier(z[test].float()).argmax(dim=1) == y[test]).double().mean())
    words = [str(names[label]) for label in known]
    facts = {
        "names": words,
        "data": rows.source,
        "rows": len(z),
        "accuracy": accuracy,
        "weights": model.loaded_weights,
        "checkpoint_sha256": sha256(find_checkpoint(chosen.run)),
    }
    write_model_file(target, classifier.cpu(), facts)
    tell(
        f"lebm: classifier of {len(known)} classes in {target} (latents of {len(z)} rows of {rows.source},"
        f" right on {accuracy:.1%} of {int(test.sum())} held-out rows)"
    )
    word = words[0] if words[0].isalnum() else f"'{words[0]}'"
    tell(f"lebm: next: lebm sample {chosen.run} --class {word}")
    return 0


def _file(run: Path) -> Path:
    """Where the classifier of a run is stored."""
    return home(run) / ("classes.safetensors" if run.is_dir() else f"{run.stem}.classes.safetensors")


def class_condition(chosen: argparse.Namespace, model: LatentModel) -> Condition:
    """The condition that ``--class`` names, by the classifier beside the run.

    Raises:
        UserError: if there is no classifier, it was fitted to other weights, or a class is not known.
    """
    from lebm import checkpoint
    from lebm.conditions import parsed
    from lebm.files import sha256
    from lebm.models import LatentClassifier

    file = chosen.classifier or _file(chosen.run)
    if not file.exists():
        raise UserError(
            f"{file}: there is no classifier for --class; lebm condition {chosen.run} --data FOLDER fits one"
        )
    content = checkpoint.read(file)
    facts = content.get("facts", {})
    classifier = checkpoint.rebuilt(file, content, LatentClassifier, map_location=model.device)
    made_for = facts.get("checkpoint_sha256"), facts.get("weights")
    if made_for != (sha256(checkpoint.find_checkpoint(chosen.run)), model.loaded_weights):
        raise UserError(
            f"{file}: was fitted to other weights than those of {chosen.run}; fit it again by lebm condition"
            f" {chosen.run} --data FOLDER --force"
        )
    try:
        return parsed(chosen.classes, classifier, facts["names"])
    except ValueError as error:
        raise UserError(f"--class {chosen.classes}: {error}") from error
