"""Checkpoints and model files: plain data, rebuilt into models without executing stored code."""

from lebm.checkpoint.model_file import is_model_file, write_model_file
from lebm.checkpoint.reading import FORMAT, SEALED_FORMAT, find_checkpoint, newest, read, rebuilt

__all__ = [
    "FORMAT",
    "SEALED_FORMAT",
    "find_checkpoint",
    "is_model_file",
    "newest",
    "read",
    "rebuilt",
    "write_model_file",
]
