"""Checkpoints: plain data in, a rebuilt model out, and nothing executed on the way."""

from lebm.checkpoint.reading import FORMAT, SEALED_FORMAT, find_checkpoint, load, newest, read

__all__ = ["FORMAT", "SEALED_FORMAT", "find_checkpoint", "load", "newest", "read"]
