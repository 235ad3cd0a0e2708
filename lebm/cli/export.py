"""``lebm export`` and ``lebm push``: a model as one file, and on the Hugging Face Hub."""

import tempfile
from pathlib import Path
from typing import Any

from lebm import hub
from lebm.cli.common import VerbParser, add_weights, free
from lebm.errors import tell
from lebm.files import sha256
from lebm.run.folder import plain, write_json, write_text


def _parser(verb: str, description: str) -> VerbParser:
    parser = VerbParser(verb, description)
    parser.add_argument("run", type=Path, help="run folder, or .ckpt or .safetensors file")
    halves = "number format of the weights; float16 halves the file and rounds them"
    parser.flag("--dtype", halves, choices=("float32", "float16"), default="float32")
    parser.flag("--license", "licence of the weights in the card, such as apache-2.0 (default: none)")
    add_weights(parser, "; readers of the file need it too")
    return parser


def _exported(chosen: Any, file: Path, card: Path, name: str | None) -> Any:
    """Write the model, and its card if the model has a name there; return the model."""
    from lebm.report.card import model_card
    from lebm.run.provenance import export

    model = export(chosen.run, file, dtype=chosen.dtype, weights=chosen.weights, trust=chosen.trust)
    if name:
        write_text(card, model_card(file, chosen.run, name, chosen.license))
    return model


def export(argv: list[str]) -> None:
    """Run ``lebm export RUN FILE.safetensors``."""
    parser = _parser("export", "Write the model of a run as one safetensors file, for example to share it.")
    parser.add_argument("file", type=Path, help="NAME.safetensors")
    card = "write a card beside FILE, with the values of evaluation.json; NAME opens the model, as FILE does"
    parser.flag("--card", card, metavar="NAME")
    parser.flag("--force", "replace FILE and its card if they exist", action="store_true")
    chosen = parser.parse_args(argv)
    hub.located(chosen.run, download=False)
    free(chosen.file, chosen.force, "name")
    beside = free(chosen.file.with_suffix(".md"), chosen.force or not chosen.card, "name")
    if chosen.card:  # a rehearsal, because a card that is rejected must not cost the old file
        with tempfile.TemporaryDirectory() as place:
            _exported(chosen, Path(place) / hub.MODEL, Path(place) / hub.CARD, chosen.card)
    model = _exported(chosen, chosen.file, beside, chosen.card)
    tell(
        f"lebm: {type(model).__name__}, {model.loaded_weights} weights of {chosen.run}, in {chosen.file}"
        f" ({chosen.file.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256(chosen.file)})"
    )


def push(argv: list[str]) -> None:
    """Run ``lebm push RUN USER/NAME``."""
    parser = _parser(
        "push",
        "Upload the model of a run to the Hugging Face Hub: safetensors, config.json and a card with the"
        " values of its evaluation.json. The token comes from `hf auth login` or HF_TOKEN.",
    )
    parser.add_argument("name", help="repository USER/NAME, created if it does not exist")
    parser.flag("--private", "private visibility of a new repository", action="store_true")
    chosen = parser.parse_args(argv)
    hub.located(chosen.run, download=False)
    repository = hub.parsed(chosen.name)[0]
    hub.need_token(chosen.name)
    from lebm import checkpoint

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _exported(chosen, folder / hub.MODEL, folder / hub.CARD, f"{hub.PREFIX}{repository}")
        content = checkpoint.read(folder / hub.MODEL)
        origin = {"model": content["hyper_parameters"], "facts": content["facts"]}
        write_json(folder / hub.CONFIG, {"library_name": "lebm", **plain(origin)})
        address = hub.push(chosen.name, folder, chosen.private)
    tell(f"lebm: {chosen.run} is now {hub.PREFIX}{repository} ({address})")
