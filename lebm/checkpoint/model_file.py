"""Model files: weights as safetensors, with the description of the model in the header.

Such a file holds neither an archive nor a pickle. The header is text: ``description`` (as in checkpoints),
``state`` (plain state such as a vocabulary), ``facts`` (the origin of the weights) and ``sha256``, a checksum
of everything else.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lebm.checkpoint.rebuild import uncompiled
from lebm.component import describe
from lebm.errors import UserError
from lebm.files import replaced

SUFFIX = ".safetensors"
MODEL_FORMAT = 1
_STATE = "state:"
_PARTS = ("description", "state", "facts")


def is_model_file(path: str | os.PathLike) -> bool:
    """Return whether a path names a model file."""
    return Path(path).suffix == SUFFIX


def write_model_file(
    path: str | Path,
    model: nn.Module,
    facts: Mapping[str, Any],
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a model as a file that :func:`lebm.load` opens. The file is written atomically.

    Args:
        path: the file, ``NAME.safetensors``.
        model: a model whose parts can describe themselves, as all models of lebm can.
        facts: plain values to store with it.
        dtype: ``"float16"`` stores single-precision numbers in half the space where half precision can
            represent them. They become single precision again when the file is opened.

    Raises:
        UserError: if ``path`` has another suffix.
    """
    if not is_model_file(path):
        raise UserError(f"{path}: the name of a model file ends with {SUFFIX}")
    content = uncompiled(model.state_dict())
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    state = {name: _packed(name, content[name], tensors) for name in content if name not in tensors}
    stored = {name: _stored(value, dtype == "float16") for name, value in tensors.items()}
    description = json.loads(json.dumps(describe(model)), object_hook=_eager)
    parts = {"description": description, "state": state, "facts": {**facts, "dtype": dtype}}
    header = {"format": "pt", "lebm_model": str(MODEL_FORMAT)}
    header |= {name: json.dumps(part) for name, part in parts.items()}
    header["sha256"] = _digest(header, stored)
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        file.write(_ordered(save(stored, metadata=header)))
        file.flush()
        os.fsync(file.fileno())


def read_model_file(path: Path) -> dict[str, Any]:
    """Return ``state_dict``, ``hyper_parameters`` (the description) and ``facts`` of an untrusted file.
    Errors of safetensors and JSON are not converted, and do not name the file.
    """
    content = path.read_bytes()
    tensors = load(content)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end]).get("__metadata__", {})
    if missing := [name for name in ("lebm_model", *_PARTS, "sha256") if name not in header]:
        raise UserError(f"not a model file of lebm, as lebm export writes: no {', '.join(missing)}")
    if int(header["lebm_model"]) > MODEL_FORMAT:
        raise UserError(f"written by a newer lebm (format {header['lebm_model']}); upgrade lebm")
    if header["sha256"] != _digest(header, tensors):
        raise UserError("not a readable model file (its checksum is wrong)")

    def unpacked(entry: dict[str, Any]) -> Any:
        return tensors[entry["tensor"]] if entry.keys() == {"tensor"} else entry

    description, state, facts = (json.loads(header[name], object_hook=unpacked) for name in _PARTS)
    half = facts["dtype"] == "float16"
    weights = {
        name: value.float() if half and value.dtype == torch.float16 else value
        for name, value in tensors.items()
        if not name.startswith(_STATE)
    }
    return {"state_dict": {**weights, **state}, "hyper_parameters": description, "facts": facts}


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the header without its checksum, and of the tensors with names and shapes."""
    entries = {name: [str(value.dtype), list(value.shape)] for name, value in tensors.items()}
    texts = {name: text for name, text in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps([texts, entries], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _ordered(content: bytes) -> bytes:
    """Return the file with its header sorted by name, so equal models give equal bytes."""
    start = 8 + int.from_bytes(content[:8], "little")  # of the tensors, after the header and its length
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous().clone()
    if half and value.dtype == torch.float32:
        shorter = value.half()
        return shorter if torch.equal(shorter.isfinite(), value.isfinite()) else value
    return value


def _eager(block: dict[str, Any]) -> dict[str, Any]:
    """Return a part without ``compile: true``, which concerns the machine and not the model."""
    return block | ({"compile": False} if block.get("compile") is True else {})


def _packed(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return plain state with its tensors moved to ``tensors``, under names that no weight can have."""
    if isinstance(value, Tensor):
        key = f"{_STATE}{name}:{len(tensors)}"
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {str(key): _packed(name, item, tensors) for key, item in value.items()}
    return [_packed(name, item, tensors) for item in value] if isinstance(value, list | tuple) else value
