"""Checkpoints and model files: plain data in, a rebuilt model out, and nothing executed on the way."""

from lebm.checkpoint.model_file import is_model_file, write_model_file
from lebm.checkpoint.reading import FORMAT, SEALED_FORMAT, find_checkpoint, load, newest, read, rebuilt

__all__ = [
    "FORMAT",
    "SEALED_FORMAT",
    "find_checkpoint",
    "is_model_file",
    "load",
    "newest",
    "read",
    "rebuilt",
    "write_model_file",
]
