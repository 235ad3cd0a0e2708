"""Checks of a parsed recipe before anything of it is built.

They see the merged values of all files and flags. So a block, an overlay or a file that a recipe names cannot
avoid them.
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
    """Refuse functions instead of classes, arguments named ``trust``, and hosts that nobody typed.

    Args:
        config: all values, as plain data. The classes that they name can be imported.
        typed: the words of the command line.

    Raises:
        UserError: with the key.
    """
    for key, name, value in plain_yaml.walk(config):
        if name == "class_path" and isinstance(value, str) and not inspect.isclass(pydoc.locate(value)):
            raise UserError(f"{key}: {value} is not a class")
        if name == "trust" and value:
            raise UserError(f"{key}: packages are trusted on the command line only, by --trust PACKAGE")
    known: set[str] | None = None
    loggers = (config.get("trainer") or {}).get("logger")
    for key, name, value in plain_yaml.walk(loggers, "trainer.logger"):
        if name is None or (name not in _HOSTS and not (isinstance(value, str) and "://" in value)):
            continue
        known = _typed_texts(typed) if known is None else known
        if any(text not in known for text in _texts(value)):
            raise UserError(
                f"{key}: it can choose where API keys and results are sent, so it cannot stand in a recipe or"
                f" a run folder; type it as a flag (--{key} ...), or use the logger's environment variable"
            )


def _texts(value: Any) -> Iterator[str]:
    """All texts and names in a value."""
    for _, name, item in plain_yaml.walk(value):
        if name is not None and item is not None and name not in _LEVELS:
            yield name
        if isinstance(item, str):
            yield item


def _typed_texts(words: Iterable[str]) -> set[str]:
    texts: set[str] = set()
    for word in words:
        flag, has_value, value = word.partition("=")
        texts.update(flag.lstrip("-").split("."))
        for text in (word, value) if has_value else (word,):
            texts.add(text)
            try:
                texts.update(_texts(plain_yaml.load(text)))
            except yaml.YAMLError:
                continue
    return texts
