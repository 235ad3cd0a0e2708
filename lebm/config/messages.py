"""The long reports of the parser as one line, with the file, the key and what the user can do."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lebm.config.checks import load_recipe
from lebm.config.locate import location
from lebm.config.recipes import nearest

__all__ = ["constructor_line", "interpolation_line", "parser_line", "trainer_line"]

_NOISE = re.compile(
    r"^(Does not validate against any|Subtypes:|Errors:|Given value|Subclass types expect|a class path"
    r" \(str\)|a dict with"
    r"|Expected a <class 'NoneType'>|Expected a path but|a dict without)"
)

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_KINDS |= {"Sequence": "a list", "list": "a list"}


def parser_line(text: str, recipes: Sequence[Path], argv: Sequence[str], options: Iterable[str]) -> str:
    """One line from a message of jsonargparse.

    Args:
        text: the message, often nested by indentation.
        recipes: the files that were read, to find the one with the key.
        argv: the other words of the command line.
        options: all keys that the parser knows, for suggestions.
    """
    key, cls, leaf = _deepest(text)
    known = list(options)
    word = _last_word(leaf)
    if unknown := re.search(r"Group '(.+)' does not accept option '(.+)'", leaf):
        key = [f"{unknown[1]}.{unknown[2]}"]
        leaf = "no such setting" + nearest(key[0], known)
    elif unknown := re.search(r"Option '(.+)' is not accepted", leaf):
        name = unknown[1] if key else unknown[1].split(".")[0]
        if key:
            leaf = f"{_short(cls)} has no argument {name!r}" + nearest(name, _arguments(cls))
        else:
            leaf = "no such section" + nearest(name, [other for other in known if "." not in other])
        key = [*key, name]
    elif unknown := re.match(r"unrecognized arguments: (\S+)", leaf):
        word = unknown[1].split("=")[0]
        return f"unknown argument {word}" + nearest(word.lstrip("-"), known)
    elif missing := re.search(r"following arguments are required: (.+)", leaf):
        leaf = f"{_short(cls)} needs {missing[1]}" if key else f"the section {missing[1]} is missing"
    elif denied := re.search(r"Importing '([^']+)' is not allowed", leaf):
        leaf = f"the class {denied[1]} is outside lebm, lightning and torch; if you trust it, add --trust "
        leaf += denied[1].split(".")[0]
    elif abstract := re.match(r"Expected an instantiatable class, but ?(\S*) is abstract", leaf):
        given = re.search(r"^ *Given value: (\S+)$", text, re.MULTILINE)  # the parser may leave out the name
        leaf = _abstract(abstract[1] or (given[1] if given else ""))
    else:
        given = re.search(r"^ *Given value: (.{1,40})$", text, re.MULTILINE)
        if choices := _choices(text, leaf):
            got = re.search(r"Got value: (.*)", leaf) or given
            leaf = f"expected one of {', '.join(choices)}" + (f", not {got[1]!r}" if got else "")
        elif given and re.fullmatch(r"Expected a <class '[\w.]+'>", leaf):
            leaf += f". Got value: {given[1]}"
        leaf = _plain(leaf)
    return f"{location(key, recipes, argv, word)}{leaf}"


def interpolation_line(error: Exception, recipes: Sequence[Path], argv: Sequence[str]) -> str:
    """One line for a ``${...}`` that names no key."""
    text = str(error)
    found = re.search(r"Interpolation key '([^']+)' not found", text)
    holder = re.search(r"full_key: (\S+)", text)
    where = location([holder[1]] if holder else [], recipes, argv)
    if unsupported := re.search(r"Unsupported interpolation type (\S+)", text):
        call = f"${{{unsupported[1]}:...}}"
        return f"{where}{call} calls a resolver; write the value itself, or set LEBM_ALLOW_ENV=1"
    if found is None:
        return f"{where}{text.splitlines()[0]}"
    resolved = re.search(r"resolved to '([^']+)'", text)
    target = resolved[1] if resolved else found[1].lstrip(".")
    known = [str(name) for path in recipes for name in load_recipe(path)]
    return f"{where}${{{target}}} names no key of the recipe{nearest(target, known)}"


def constructor_line(error: BaseException) -> str:
    """The message of a constructor after the name of its class, without the report of the parser."""
    message = _deepest(str(error))[2]
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    origin = next((link for link in reversed(chain) if message in str(link)), error)
    owner = ""
    for frame, _ in traceback.walk_tb(origin.__traceback__):
        constructs = frame.f_code.co_name == "__init__" and "self" in frame.f_locals
        if constructs and "cli" not in frame.f_globals.get("__name__", ""):
            owner = type(frame.f_locals["self"]).__name__
    return f"{owner}: {message}" if owner and not message.startswith(owner) else message


def trainer_line(error: Exception, trainer: Mapping[str, Any]) -> str:
    """The message of Lightning about settings that do not work on this machine, after their key.

    Args:
        error: Lightning's ``MisconfigurationException``, or ``ModuleNotFoundError`` for a device or logger
            whose package is missing.
        trainer: the section ``trainer`` of the recipe.
    """
    text = " ".join(str(error).split())
    accelerator, devices = trainer.get("accelerator"), trainer.get("devices")
    if re.search(r"gpu backend|can not run on your system|torch_xla", text):
        return (
            f"trainer.accelerator {accelerator}: no such device here; leave it auto, or see lebm doctor for"
            " what this machine has"
        )
    if "Trainer(devices=" in text:
        return f"trainer.devices {devices}: give a number of at least 1, or auto"
    if "your machine only has" in text:
        return f"trainer.devices {devices}: {text}"
    return text


def _deepest(text: str) -> tuple[list[str], str, str]:
    """Key path, innermost class path and message of the most deeply nested report that has content."""
    first = next(iter(text.strip().splitlines()), "unknown problem")
    best: tuple[int, list[str], str, str] = (-1, [], "", first)
    stack: list[tuple[int, str, str]] = []  # indentation, kind, value
    for line in text.splitlines():
        indent = _depth(line)
        rest = line.strip().removeprefix("- ")
        while stack and stack[-1][0] >= indent:
            stack.pop()
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', rest):
            stack.append((indent, "key", found[1]))
            rest, indent = found[2], indent + 1
        elif found := re.match(r"Problem with given class_path '([^']+)':\s*(.*)", rest):
            stack.append((indent, "class", found[1]))
            rest, indent = found[2], indent + 1
        if not rest or _NOISE.match(rest):
            continue
        # Of several at the same depth the first is taken. The later branches of a union only report that the
        # value has another type.
        if indent > best[0]:
            keys = [value for _, kind, value in stack if kind == "key"]
            classes = [value for _, kind, value in stack if kind == "class"]
            best = (indent, keys, classes[-1] if classes else "", rest)
    return best[1], best[2], best[3]


def _choices(text: str, leaf: str) -> list[str]:
    """The allowed values in the branches of a union beside ``leaf``, each once; empty if there are none."""
    lines = text.splitlines()
    depth = next((_depth(line) for line in lines if line.strip().removeprefix("- ") == leaf), -1)
    lists = [
        found[1]
        for line in lines
        if _depth(line) == depth and (found := re.search(r"Expected a typing\.Literal\[(.+?)\]", line))
    ]
    return list(dict.fromkeys(value.strip("' ") for values in lists for value in values.split(",")))


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _derive(path: str, base: str) -> str:
    """How to make a class of the user fit into a recipe; empty for a class of the known packages."""
    if path.split(".")[0] in ("lebm", "lightning", "torch"):
        return ""
    homes = ("lebm.models", "lebm.samplers", "lebm.inference", "lebm.estimators", "lightning.pytorch")
    home = next((home for home in homes if hasattr(sys.modules.get(home), base)), "")
    return f": derive it from {home}.{base}" if home else f": derive it from {base}"


def _abstract(path: str) -> str:
    """The line for an abstract class. The parser names the base class if the recipe names no class."""
    module, _, name = path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if not missing:
        return f"name the class with class_path, some kind of {_short(path)}"
    lacking = f"is abstract: it does not define {', '.join(missing)}"
    if path.startswith("lebm."):
        return f"{_short(path)} {lacking}; name with class_path a class that is derived from it"
    return f"{path} {lacking}"


def _plain(leaf: str) -> str:
    leaf = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", leaf)
    if found := re.match(r"Expected a (\w+)\. Got value: (.*)", leaf):
        return f"expected {_a(found[1])}, not {found[2]!r}"
    if found := re.match(r"Expected a (\w+)$", leaf):
        return f"expected {_a(found[1])}"
    if found := re.match(r"Import path (\S+) does not correspond to a subclass of (\w+)", leaf):
        return f"{found[1]} is no {found[2]}{_derive(found[1], found[2])}"
    if found := re.match(r"module '([^']+)' has no attribute '(\w+)'", leaf):
        return f"there is no {found[1]}.{found[2]}" + nearest(found[2], _public(found[1]))
    if found := re.match(r"Expected a dot import path string: (.*)", leaf):
        hint = nearest(found[1], _loaded_classes()) or (
            "; a class of lebm is found once its folder exports it, a class of yours by its module's name"
        )
        return f"{found[1]!r} is not a class here{hint}"
    if found := re.match(r"Not a valid subclass of (\w+)\.? ?(?:Got value: (.*))?", leaf):
        got = f", not {found[2]}" if found[2] else ""
        return f"expected a {found[1]}, as class_path and init_args{got}"
    if found := re.match(r"No module named '?([\w.]+)'?", leaf):
        return f"there is no module {found[1]}; run in the folder that holds it, or install it"
    return re.sub(r"\s+", " ", leaf)


def _last_word(leaf: str) -> str:
    """The word that a message is about: its last quoted word, or the given value."""
    quoted = re.findall(r"'([\w.${}]+)'", leaf.split(", denied by")[0])
    got = re.search(r"Got value: (\S+)$", leaf)
    return got[1] if got else quoted[-1] if quoted else ""


def _arguments(cls: str) -> list[str]:
    """Argument names of a class that the parser has accepted and therefore imported."""
    module, _, name = cls.rpartition(".")
    owner = getattr(sys.modules.get(module), name, None)
    return list(inspect.signature(owner).parameters) if inspect.isclass(owner) else []


def _public(module: str) -> list[str]:
    """Public names of a module in which the parser has looked, and which is therefore imported."""
    return [name for name in dir(sys.modules.get(module)) if not name.startswith("_")]


def _loaded_classes() -> list[str]:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("lebm.")]
    return [name for module in modules for name in getattr(module, "__all__", [])]


def _short(path: str) -> str:
    return path.rpartition(".")[2] or "the recipe"


def _a(kind: str) -> str:
    return _KINDS.get(kind, f"a {kind}")
