"""``lebm export RUN FILE.safetensors`` writes a model to share, ``lebm verify FILE`` looks at one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lebm.cli.common import tell
from lebm.cli.flags import VerbParser, add_weights
from lebm.errors import UserError
from lebm.files import sha256
from lebm.run.folder import check_run

__all__ = ["export", "verify"]

_SHOWN = ("lebm", "export_commit", "recipe", "recipe_sha256", "data_key", "steps", "seed", "weights", "dtype")


def export(argv: list[str]) -> int:
    """``lebm export RUN FILE.safetensors``"""
    parser = VerbParser(
        "lebm export",
        description="Write the model of a run as one file of safetensors, for others to open.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="a run folder or a .ckpt file")
    parser.add_argument("file", type=Path, help="NAME.safetensors")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="float16 halves the file; the weights are rounded (default %(default)s)",
    )
    add_weights(parser, "; who opens the file needs the same")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    chosen = parser.parse_args(argv)
    check_run(chosen.run)
    if chosen.file.suffix != ".safetensors":
        raise UserError(f"{chosen.file}: a model file is called NAME.safetensors")
    if chosen.file.exists() and not chosen.force:
        raise UserError(f"{chosen.file} exists; choose another name or add --force")
    from lebm.run import provenance

    model = provenance.export(
        chosen.run, chosen.file, dtype=chosen.dtype, weights=chosen.weights, trust=chosen.trust
    )
    tell(
        f"lebm: {type(model).__name__}, {model.loaded_weights} weights of {chosen.run}, in {chosen.file}"
        f" ({chosen.file.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256(chosen.file)})"
    )
    return 0


def verify(argv: list[str]) -> int:
    """``lebm verify FILE``"""
    parser = VerbParser(
        "lebm verify",
        description="Say what a model file or checkpoint holds, and whether it fits its own checksum.",
    )
    parser.add_argument(
        "file", type=Path, help="a .safetensors or .ckpt file, pretrained/NAME, hub:USER/NAME"
    )
    chosen = parser.parse_args(argv)
    check_run(chosen.file)
    from lebm import checkpoint

    file = checkpoint.find_checkpoint(chosen.file)
    content = checkpoint.read(file)  # refuses a file whose checksum is wrong
    described = content.get("hyper_parameters")
    lines: dict[str, Any] = {
        "file": file,
        "model": described.get("class_path") if isinstance(described, dict) else None,
    }
    facts = content.get("facts", {"steps": content.get("global_step")})
    lines |= {name: facts[name] for name in _SHOWN if facts.get(name) is not None}
    lines["number of weights"] = f"{_numbers(content['state_dict']):,}"
    lines |= _sizes(content)
    lines["SHA-256"] = sha256(file)
    sealed = content["lebm_format"] >= checkpoint.SEALED_FORMAT
    lines["checksum"] = "the content fits it" if sealed else "none in a checkpoint of format 1"
    for name, value in lines.items():
        tell(f"{name.replace('_', ' ')}: {value}")
    return 0


def _numbers(state: Any) -> int:
    return sum(value.numel() for value in state.values() if hasattr(value, "numel"))


def _sizes(content: Any) -> dict[str, str]:
    """What the model observes, the size of its latent, and how many of its numbers are parameters."""
    from lebm.checkpoint.rebuild import filled
    from lebm.estimators.latent_model import LatentModel
    from lebm.models.observations import event_shape

    state = content["state_dict"]
    try:
        model = filled(content.get("hyper_parameters"), LatentModel, state)
    except UserError as error:  # the content may fit its checksum all the same
        return {"sizes": f"not known, {error}"}
    shape = event_shape(model.observation_model)
    length = getattr(getattr(model.observation_model, "generator", None), "max_length", None)
    parameters = sum(value.numel() for value in model.parameters())
    lines = {"latent size": str(model.latent_dim)}
    if shape is not None:
        kind = {1: "rows", 3: "images"}.get(len(shape), "arrays")
        lines["observations"] = f"{kind} of shape ({', '.join(map(str, shape))})"
    elif length is not None:
        lines["observations"] = f"sentences of at most {length} tokens"
    rest = _numbers(state) - parameters
    lines["parameters"] = f"{parameters:,}" + (
        f"; the other {rest:,} of these weights are buffers, which training does not fit" if rest else ""
    )
    return lines
