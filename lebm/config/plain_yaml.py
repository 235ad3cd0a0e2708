"""YAML of plain values: no tags, and limits for merge keys and numbers, which can take long to read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from yaml.constructor import ConstructorError

__all__ = ["compose", "load", "walk"]

_MAX_MERGED = 100_000
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # absent where PyYAML was built without libyaml
_MAX_DIGITS = 1000


def load(text: str) -> Any:
    """The content of a YAML text, as :func:`yaml.safe_load` gives it.

    Raises:
        yaml.YAMLError: for text that is not YAML, for merge keys (``<<``) that expand to more than 100,000
            entries, and for numbers of more than 1000 characters.
    """
    return copy.deepcopy(_loaded(text))


@functools.lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    """The content itself. A command reads each of its recipes several times."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError as error:  # a date or a number that Python cannot represent
        raise ConstructorError(None, None, f"a value that cannot be read ({error})", None) from error


def compose(text: str) -> Any:
    """The nodes of a YAML text, with their places in it.

    libyaml does not guard against deep nesting, so the text must be one that :func:`load` has read.
    """
    return yaml.compose(text, Loader=_FastLoader)


def walk(value: Any, key: str = "", name: str | None = None) -> Iterator[tuple[str, str | None, Any]]:
    """All values in nested mappings and lists, the outer ones first.

    Yields:
        The whole key of a value, its name in its mapping, and the value. The name of an item of a list is
        ``None``.

    Example:
        >>> from lebm.config.plain_yaml import walk
        >>> list(walk({"a": [1]}))
        [('', None, {'a': [1]}), ('a', 'a', [1]), ('a[0]', None, 1)]
    """
    yield key, name, value
    if isinstance(value, Mapping):
        for part, item in value.items():
            yield from walk(item, f"{key}.{part}".lstrip("."), str(part))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from walk(item, f"{key}[{position}]")


class _Loader(yaml.SafeLoader):
    """A SafeLoader that counts the entries of merge keys: a few lines of them can stand for billions."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            super().flatten_mapping(node)
            self._merged += len(node.value)
        if self._merged > _MAX_MERGED:
            raise ConstructorError(
                None, None, f"its merge keys (<<) stand for more than {_MAX_MERGED} entries", node.start_mark
            )

    def short_number(self, node: yaml.ScalarNode) -> Any:
        """A number, if it is short: a long number of base 60 takes quadratic time."""
        if len(node.value) > _MAX_DIGITS:
            raise ConstructorError(
                None, None, f"a number of {len(node.value)} characters (limit {_MAX_DIGITS})", node.start_mark
            )
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.short_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.short_number)
