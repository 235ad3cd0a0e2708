"""What is refused in a parsed recipe before any of it is built, wherever it was written.

These checks see the merged values, so a block, an overlay or a file that a recipe names cannot pass them by.
"""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from lebm.config import plain_yaml
from lebm.errors import UserError

__all__ = ["check_parsed"]

_HOSTS = {
    *("settings", "base_url", "host", "tracking_uri", "api_key", "url", "url_override", "proxies"),
    *("artifact_location", "experiment_config"),
}
_LEVELS = ("init_args", "dict_kwargs")


def check_parsed(config: Mapping[str, Any], typed: Iterable[str]) -> None:
    """Refuse functions in the place of classes, arguments named ``trust``, and hosts that nobody typed.

    Args:
        config: all values, as plain data; everything that they name can be imported.
        typed: the words of the command line.

    Raises:
        UserError: naming the key.
    """
    for key, name, value in _entries(config, ""):
        if name == "class_path" and isinstance(value, str) and not inspect.isclass(pydoc.locate(value)):
            raise UserError(f"{key}: {value} is not a class")
        if name == "trust" and value:
            raise UserError(f"{key}: packages are trusted on the command line only, by --trust PACKAGE")
    known: set[str] | None = None
    for key, name, value in _entries((config.get("trainer") or {}).get("logger"), "trainer.logger"):
        if name not in _HOSTS and not (isinstance(value, str) and "://" in value):
            continue
        known = _typed_texts(typed) if known is None else known
        if any(text not in known for text in _texts(value)):
            raise UserError(
                f"{key}: it can choose where API keys and results are sent, so it is not taken from a recipe"
                f" or a run folder; type it as a flag (--{key} ...), or use the logger's environment variable"
            )


def _entries(value: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Every entry of nested mappings: its whole key, its last name, and its value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{key}.{name}".lstrip("."), str(name), item
            yield from _entries(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _entries(item, f"{key}[{position}]")


def _texts(value: Any) -> Iterator[str]:
    """All texts and names in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if item is not None and name not in _LEVELS:
                yield str(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _typed_texts(words: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        flag, has_value, value = word.partition("=")
        found.update(flag.lstrip("-").split("."))
        for text in (word, value) if has_value else (word,):
            found.add(text)
            try:
                found.update(_texts(plain_yaml.load(text)))
            except yaml.YAMLError:
                continue
    return found
