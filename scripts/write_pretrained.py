"""Write the model of a finished run to lebm/pretrained/NAME.safetensors, and its card NAME.md.

    python scripts/write_pretrained.py runs/latent_mle-mnist latent_mle-mnist

The run must be finished and evaluated (`lebm evaluate RUN`). Weights have half precision and the licence
Apache 2.0. The card takes its values from evaluation.json and summary.json. All models may take 9 MB."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from lebm import pretrained
from lebm.errors import UserError
from lebm.files import replaced
from lebm.report.card import model_card
from lebm.run.provenance import export

LIMIT = 9_000_000


def ship(run: Path, name: str) -> Path:
    """Write model and card, or neither.

    Raises:
        UserError: if the run is not finished or not evaluated, or the folder would hold more than 9 MB.
    """
    if not re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", name):
        raise UserError(f"{name}: use only small letters, digits, underscores and dashes")
    for needed in ("summary.json", "evaluation.json"):
        if not (run / needed).is_file():
            raise UserError(f"{run}: no {needed}; finish the training, then run lebm evaluate {run}")
    status = json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"]
    if status != "finished":
        raise UserError(f"{run}: {status}, not finished")
    folder = pretrained.folder()
    target = folder / f"{name}.safetensors"
    with replaced(target.with_suffix(".md")) as card, replaced(target) as unfinished:
        written = unfinished.with_suffix(".safetensors")
        try:
            export(run, written, dtype="float16")
            others = sum(file.stat().st_size for file in folder.glob("[!.]*.safetensors") if file != target)
            if others + written.stat().st_size > LIMIT:
                raise UserError(f"{name}: {written.stat().st_size} bytes; all models may take {LIMIT}")
            text = model_card(written, run, f"{pretrained.PREFIX}{name}", "apache-2.0")
            card.write_text(text, encoding="utf-8")
            written.rename(unfinished)
        finally:
            written.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        file = ship(Path(sys.argv[1]), sys.argv[2])
    except UserError as error:
        raise SystemExit(str(error)) from error
    print(f"{file}: {file.stat().st_size:,} bytes; card {file.with_suffix('.md').name}")
