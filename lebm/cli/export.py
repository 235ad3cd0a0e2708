"""``lebm export RUN FILE.safetensors``: the model of a run as one file to share."""

from __future__ import annotations

from pathlib import Path

from lebm.cli.common import tell
from lebm.cli.flags import VerbParser, add_weights
from lebm.errors import UserError
from lebm.files import sha256
from lebm.run.folder import check_run

__all__ = ["export"]


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
