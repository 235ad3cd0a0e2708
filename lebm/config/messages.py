"""Long reports of the parser as one line with the file, the key and a remedy."""

import importlib
import inspect
import pydoc
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lebm.component import constructor_parameters
from lebm.config.recipes import HOMES, Setting, location, nearest

_NOISE = re.compile(
    r"^(Does not validate against any|Subtypes:|Errors:|Given value|Subclass types expect|a class path"
    r" \(str\)|a dict with|Expected a <class 'NoneType'>|Expected a path but|a dict without)"
)
_REPORT = re.compile(r"""(Parser key|Problem with given class_path) ["']([^"']+)["']:\s*(.*)""")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a string"}
_KINDS |= {"Sequence": "a list", "list": "a list"}


def parser_line(text: str, settings: Sequence[Setting], options: Iterable[str]) -> str:
    """Shorten a message of jsonargparse to one line with the file of the key and a suggestion."""
    key, path, leaf = _deepest(text)
    cls = path.rpartition(".")[2]
    if found := re.search(r"Group '(.+)' does not accept option '(.+)'", leaf):
        key = [f"{found[1]}.{found[2]}"]
        leaf = "no such setting" + nearest(key[0], options)
    elif found := re.search(r"Option '(.+)' is not accepted", leaf):
        name = found[1] if key else found[1].split(".")[0]
        if key:
            owner = pydoc.locate(path)
            known: Iterable[str] = constructor_parameters(owner) if inspect.isclass(owner) else ()
            leaf = f"{cls} has no argument {name!r}" + nearest(name, known)
        else:
            leaf = "no such section" + nearest(name, [other for other in options if "." not in other])
        key = [*key, name]
    elif found := re.search(r"following arguments are required: (.+)", leaf):
        leaf = f"{cls} needs {found[1]}" if key else f"the section {found[1]} is missing"
    elif found := re.search(r"Importing '([^']+)' is not allowed", leaf):
        leaf = f"the class {found[1]} is outside lebm, lightning and torch; to trust it, add --trust "
        leaf += found[1].split(".")[0]
    elif found := re.match(r"Expected an instantiatable class, but ?(\S*) is abstract", leaf):
        given = re.search(r"^ *Given value: (\S+)$", text, re.MULTILINE)  # the parser may leave out the name
        leaf = _abstract(found[1] or (given[1] if given else ""))
    else:
        leaf = _value(text, leaf)
    return f"{location(key, settings)}{leaf}"


def _abstract(path: str) -> str:
    """Return the message for an abstract class, which the parser also names if the recipe names no class."""
    module, _, name = path.rpartition(".")
    missing = sorted(getattr(getattr(sys.modules.get(module), name, None), "__abstractmethods__", ()))
    if not missing:
        return f"name a subclass of {name or 'the section'} with class_path"
    hint = "; name a class derived from it with class_path" if path.startswith("lebm.") else ""
    return f"{path} is abstract: it does not define {', '.join(missing)}{hint}"


def _value(text: str, leaf: str) -> str:
    given = re.search(r"^ *Given value: (.{1,40})$", text, re.MULTILINE)
    choices = re.findall(r"Expected a typing\.Literal\[(.+?)\](?:\. Got value: (.*))?", text)
    if choices and leaf.startswith("Expected a"):
        allowed = dict.fromkeys(word.strip("' ") for words, _ in choices for word in words.split(","))
        got = choices[0][1] or (given[1] if given else "")
        return f"expected one of {', '.join(allowed)}" + (f", not {got!r}" if got else "")
    leaf = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", leaf)
    if found := re.match(r"Expected an? (\w+)(?:\. Got value: (.*))?$", leaf):
        got = found[2] or (given[1] if given else "")
        return f"expected {_KINDS.get(found[1], f'a {found[1]}')}" + (f", not {got!r}" if got else "")
    if found := re.match(r"module '([^']+)' has no attribute '(\w+)'", leaf):
        hint = nearest(found[2], dir(importlib.import_module(found[1])))
        return f"no such class {found[1]}.{found[2]}{hint}"
    if found := re.match(r"Expected a dot import path string: (.*)", leaf):
        known = {name for home in HOMES for name in dir(importlib.import_module(home))}
        if found[1] in known:
            return f"{found[1]} is a class of another kind"
        return f"{found[1]!r} is not a known class" + nearest(found[1], known)
    if found := re.match(r"Not a valid subclass of (\w+)\.? ?(?:Got value: (.*))?", leaf):
        got = f", not {found[2]}" if found[2] else ""
        return f"expected a {found[1]}, as class_path and init_args{got}"
    if found := re.match(r"No module named '?([\w.]+)'?", leaf):
        return f"no module {found[1]}; run lebm in its folder, or install it"
    return re.sub(r"\s+", " ", leaf)


def interpolation_line(error: Exception, settings: Sequence[Setting]) -> str:
    """Return one line for a ``${...}`` that refers to no key."""
    text = str(error)
    holder = re.search(r"full_key: (\S+)", text)
    where = location([holder[1]] if holder else [], settings)
    found = re.search(r"resolved to '([^']+)'", text)
    if found is None:
        return f"{where}{text.splitlines()[0]}"
    known = [name for setting in settings for name in setting.sections]
    return f"{where}${{{found[1]}}} refers to no key of the recipe{nearest(found[1], known)}"


def constructor_line(error: BaseException) -> str:
    """Return the message of a constructor after its class name, without the report of the parser."""
    message, owner = _deepest(str(error))[2], ""
    step: BaseException | None = error
    while step is not None and not owner:
        owner = getattr(step, "component", "")
        step = step.__cause__ or step.__context__
    return f"{owner}: {message}" if not message.startswith(owner) else message


def trainer_line(error: Exception, trainer: Mapping[str, Any]) -> str:
    """Return the message of Lightning about unsupported settings, after their key."""
    text = " ".join(str(error).split())
    if re.search(r"gpu backend|can not run on your system|torch_xla", text):
        return f"trainer.accelerator {trainer.get('accelerator')}: no such device on this machine; use auto"
    return text


def _deepest(text: str) -> tuple[list[str], str, str]:
    """Return key path, innermost class and message of the most deeply nested report with content.

    At equal depth the first report counts, because later branches of a union only report another type.
    """
    first = next(iter(text.strip().splitlines()), "unknown problem")
    best: tuple[int, list[str], str, str] = (-1, [], "", first)
    stack: list[tuple[int, str, str]] = []  # indentation, kind, value
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        rest = line.strip().removeprefix("- ")
        while stack and stack[-1][0] >= indent:
            stack.pop()
        if found := _REPORT.match(rest):
            stack.append((indent, found[1], found[2]))
            rest, indent = found[3], indent + 1
        if rest and not _NOISE.match(rest) and indent > best[0]:
            keys = [value for _, kind, value in stack if kind == "Parser key"]
            classes = [value for _, kind, value in stack if kind != "Parser key"]
            best = (indent, keys, classes[-1] if classes else "", rest)
    return best[1:]
