"""Model files: weights as safetensors, and in the header the plain description of the model.

Such a file holds no archive and no pickle. The sizes of all tensors are known from the header before one of
them is read. The header is text: ``description`` (as checkpoints hold it), ``state`` (plain state such as a
vocabulary), ``facts`` (where the weights come from) and ``sha256``, a checksum of everything else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lebm.checkpoint.budget import check_limits
from lebm.checkpoint.seal import open_ordinary
from lebm.component import describe
from lebm.errors import UserError
from lebm.files import replaced

__all__ = ["MODEL_FORMAT", "SUFFIX", "is_model_file", "read_model_file", "write_model_file"]

SUFFIX = ".safetensors"
MODEL_FORMAT = 1
_HEADER = 16 << 20
_STATE = "state:"
_PARTS = ("description", "state", "facts")


def is_model_file(path: str | os.PathLike) -> bool:
    """Whether a path is that of a model file, by its name."""
    return Path(path).suffix == SUFFIX


def write_model_file(
    path: str | Path,
    model: nn.Module,
    facts: Mapping[str, Any],
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a model as a file that :func:`lebm.load` opens. The file appears whole or not at all.

    Args:
        path: the file, ``NAME.safetensors``.
        model: a model whose parts can describe themselves, as all models of lebm can.
        facts: plain values that are stored beside it.
        dtype: ``"float16"`` stores single-precision numbers in half the room, where half precision can hold
            them. They become single precision again when the file is opened.

    Raises:
        UserError: if the name has another ending, or the model is one that :func:`read_model_file` refuses.
        lebm.component.DescriptionError: if a part has no plain description.
    """
    from safetensors.torch import save

    if not is_model_file(path):
        raise UserError(f"{path}: a model file is called NAME{SUFFIX}")
    tensors: dict[str, Tensor] = {}
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            tensors[name] = value
        else:
            state[name] = _packed(name, value, tensors)
    stored = {name: _stored(value, dtype == "float16") for name, value in tensors.items()}
    parts = {"description": _eager(describe(model)), "state": state, "facts": {**facts, "dtype": dtype}}
    header = {"format": "pt", "lebm_model": str(MODEL_FORMAT)}
    header |= {name: json.dumps(_spelled(part), allow_nan=False) for name, part in parts.items()}
    header["sha256"] = _digest(header, stored)
    with replaced(path) as unfinished:
        with open(unfinished, "wb") as file:
            file.write(_ordered(save(stored, metadata=header)))
            file.flush()
            os.fsync(file.fileno())
        read_model_file(unfinished, shown=Path(path))


def read_model_file(path: Path, shown: Path | None = None) -> dict[str, Any]:
    """The content of a model file, in the form of :func:`lebm.checkpoint.read`.

    Args:
        path: the file, which may come from anybody.
        shown: its name in messages; ``path`` if ``None``.

    Returns:
        ``state_dict``, ``hyper_parameters`` (the description) and ``facts``.

    Raises:
        UserError: in one line, if it is damaged or no such file, or if its model would be too large or slow.
    """
    shown = shown or path
    try:
        header, tensors = _opened(path)
        _check_header(header, tensors)
        parts = {name: _parsed(header[name], tensors) for name in _PARTS}
        description, state, facts = (parts[name] for name in _PARTS)
        if not isinstance(state, dict) or not isinstance(facts, dict):
            raise UserError("not a readable model file (its header is no mapping)")
        check_limits(description, sum(value.numel() for value in tensors.values()))
    except UserError as error:  # some name the file already
        raise UserError(f"{shown}: {str(error).removeprefix(f'{path}: ')}") from error
    except FileNotFoundError as error:
        raise UserError(f"{shown}: no such run folder or checkpoint") from error
    except RecursionError as error:
        raise UserError(f"{shown}: refused, nested too deeply") from error
    except Exception as error:  # the reader meets damage with errors of many kinds
        first = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise UserError(f"{shown}: not a readable model file ({first})") from error
    if facts.get("dtype") == "float16":
        tensors = {
            name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()
        }
    weights = {name: value for name, value in tensors.items() if not name.startswith(_STATE)}
    return {"state_dict": {**weights, **state}, "hyper_parameters": description, "facts": facts}


def _opened(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open

    with open_ordinary(path) as file:
        if int.from_bytes(file.read(8), "little") > _HEADER:
            raise UserError(f"refused, its header is larger than {_HEADER} bytes")
    with safe_open(path, framework="pt") as opened:
        return dict(opened.metadata() or {}), {name: opened.get_tensor(name) for name in list(opened.keys())}


def _check_header(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    version = header.get("lebm_model", "")
    if not version.isdecimal() or len(version) > 6:
        raise UserError("not a model file of lebm, which lebm export writes")
    if int(version) > MODEL_FORMAT:
        raise UserError(
            f"written by a newer lebm (format {version}, this one reads up to {MODEL_FORMAT}); upgrade lebm"
        )
    if missing := [name for name in (*_PARTS, "sha256") if name not in header]:
        raise UserError(f"not a readable model file (its header has no {', '.join(missing)})")
    if header["sha256"] != _digest(header, tensors):
        raise UserError("not a readable model file (its checksum is wrong)")


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header without its checksum, and of the tensors: names, types, shapes and bytes."""
    entries = {name: [str(value.dtype), list(value.shape)] for name, value in tensors.items()}
    texts = {name: text for name, text in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps([texts, entries], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _ordered(content: bytes) -> bytes:
    """The same file with its header in the order of names: the same model gives the same bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous().clone()
    if half and value.dtype == torch.float32:
        shorter = value.half()
        return shorter if torch.equal(shorter.isfinite(), value.isfinite()) else value
    return value


def _eager(description: Any) -> Any:
    """The description without ``compile: true``, which is a choice for the machine that runs the model."""
    if isinstance(description, dict):
        return {
            name: False if name == "compile" and value is True else _eager(value)
            for name, value in description.items()
        }
    return [_eager(item) for item in description] if isinstance(description, list) else description


def _packed(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Plain state with its tensors put into ``tensors``, under names that no weight can have."""
    if isinstance(value, Tensor):
        key = f"{_STATE}{name}:{len(tensors)}"
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {str(key): _packed(name, item, tensors) for key, item in value.items()}
    return [_packed(name, item, tensors) for item in value] if isinstance(value, list | tuple) else value


def _spelled(value: Any) -> Any:
    """Plain values for JSON, which has no infinity and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {name: _spelled(item) for name, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list | tuple) else value


def _parsed(text: str, tensors: Mapping[str, Tensor]) -> Any:
    def read(entry: dict[str, Any]) -> Any:
        if entry.keys() == {"float"}:
            return float(entry["float"])
        return tensors[entry["tensor"]] if entry.keys() == {"tensor"} else entry

    def refuse(word: str) -> Any:
        raise UserError(f"refused, its header holds {word}, which is no JSON")

    return json.loads(text, object_hook=read, parse_constant=refuse)
