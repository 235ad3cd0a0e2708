"""Recipes: their files, names and includes, and the merging of blocks, overlays and flags."""

import difflib
import importlib
import importlib.util
import inspect
import pydoc
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lebm.component import constructor_parameters
from lebm.errors import UserError

TRUSTED = ("lebm", "lightning", "torch")
"""Packages whose classes a recipe may name without ``--trust``."""
_LEVELS = ("class_path", "init_args", "dict_kwargs")
HOMES = (
    *(f"lebm.{room}" for room in ("models", "samplers", "estimators", "inference", "data", "callbacks")),
    *("lebm.density_ratio", "lightning.pytorch.loggers"),
)
_BLOCKS = "data/"


def folder() -> Path:
    """Return the folder of the packaged recipes, also in a source tree that is not installed."""
    spec = importlib.util.find_spec("lebm.recipes")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "recipes"


def names() -> dict[str, Path]:
    """Return the files of all recipes and overlays by name, such as ``latent_mle/mnist``."""
    return {name: path for name, path in _files().items() if not name.startswith(_BLOCKS)}


def blocks() -> dict[str, Path]:
    """Return the files of all blocks, which recipes include, by name, such as ``data/mnist``."""
    return {name: path for name, path in _files().items() if name.startswith(_BLOCKS)}


def _files() -> dict[str, Path]:
    root = folder()
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return dict(sorted(files.items(), key=lambda item: ("/" in item[0], item[0])))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'data/mnist'?`` for the most similar known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def find(recipe: str) -> Path:
    """Return the file of a recipe, an overlay or a block, by its path or its name.

    Raises:
        UserError: if neither a file nor a name matches.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    files, known = _files(), names()
    name = recipe.removesuffix(".yaml").removesuffix(".yml").removeprefix("recipes/")
    if name in files:
        return files[name]
    if path.is_dir():
        raise UserError(f"{recipe} is a folder, not a recipe; to continue a run: lebm fit --resume {recipe}")
    alike = [other for other in known if other.split("/")[-1] == name.split("/")[-1]]
    near = difflib.get_close_matches(name, known, n=1) or alike
    hint = f"did you mean {near[0]!r}?" if near else "lebm ls lists the recipes"
    raise UserError(f"no recipe {recipe!r}, neither by file nor by name; {hint}")


def run_name(recipe: str) -> str:
    """Return the run name of a recipe: its name with dashes, or folder and stem of a user's file."""
    path = find(recipe).resolve()
    for name, known in _files().items():
        if known.resolve() == path:
            return name.replace("/", "-")
    parent = Path(recipe).parent.name
    return path.stem if parent in ("", ".", "..", "recipes") else f"{parent}-{path.stem}"


def title(path: Path) -> str:
    """Return the first comment line of a recipe."""
    found = re.search(r"^# *([^#\s].*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else ""


def is_measured(path: Path) -> bool:
    """Return whether the header of a recipe states that it has been run at full length."""
    return "\n# Status   run at full length" in path.read_text(encoding="utf-8")


class Setting(NamedTuple):
    """A value with its dotted key and its file, which is ``None`` for a flag.

    For a file, the value is the whole content and the key is empty.
    """

    key: str
    value: Any
    source: Path | None

    @property
    def short_key(self) -> str:
        """Return the key as users write it, without the levels that only the parser needs."""
        return ".".join(_short(self.key.rstrip("+").split(".")))

    @property
    def sections(self) -> list[str]:
        """Return the first parts of the keys."""
        return [self.key.split(".")[0]] if self.key else list(self.value)


def load_recipe(path: Path) -> dict[str, Any]:
    """Return the content of a recipe as plain data.

    Raises:
        UserError: if the file is not YAML of plain values, or not a mapping.
        OSError: if the file cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or error
        raise UserError(f"{path}{line}: not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        kind = "an empty file" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path}: expected a mapping with the sections model, data and trainer, not {kind}")
    return content


def read(path: Path) -> list[Setting]:
    """Return the blocks that a recipe includes, and the recipe, in the order in which they take effect.

    Raises:
        UserError: as :func:`load_recipe` and :func:`included`, and for unknown keys beside a ``class_path``.
    """
    content = load_recipe(path)
    files = {file: load_recipe(file) for file in included(path, content)} | {path: content}
    for file, values in files.items():
        _check_blocks(values, file, "")
        values.pop("include", None)
    return [Setting("", values, file) for file, values in files.items()]


def included(path: Path, content: Mapping[str, Any], above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files that a recipe includes, in the order in which they are read.

    They are read before the recipe, so values of the recipe replace theirs. A name such as ``data/mnist``
    or ``latent_mle/mnist`` is a packaged block or recipe. A name that ends with ``.yaml`` is a file relative
    to the folder of the recipe. ``above`` lists the recipes that include this one.

    Raises:
        UserError: for an ``include`` that is not a name or a list of names, matches nothing, or includes
            itself.
    """
    names = content.get("include") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: include: expected a name or a list of names, not {names!r}")
    found: list[Path] = []
    above, known = (*above, path.resolve()), _files()
    for name in names:
        file = path.parent / name if name.endswith((".yaml", ".yml")) else known.get(name)
        if file is None or not file.is_file():
            raise UserError(f"{path}: include: no such block or file {name!r}{nearest(name, known)}")
        if file.resolve() in above:
            raise UserError(f"{path}: include: {name} includes itself")
        found += [*included(file, load_recipe(file), above), file]
    return found


def _check_blocks(value: Any, path: Path, key: str) -> None:
    """Reject unknown keys beside ``class_path``, because the parser would name another key."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            _check_blocks(item, path, f"{key}[{position}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if "class_path" in value and name not in _LEVELS:
                hint = nearest(str(name), _LEVELS) or "; arguments of the class go below init_args"
                raise UserError(f"{path}: {key}: {name!r} is not allowed next to class_path{hint}")
            _check_blocks(item, path, f"{key}.{name}".lstrip("."))


def merged(settings: Iterable[Setting], trust: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Merge all settings into one mapping, in which later settings override earlier ones.

    Mappings are merged and other values replaced. If a class changes, arguments that both classes have are
    kept, including references such as ``${latent_dim}``. A flag replaces a table of values, such as the
    learning rates; an overlay changes single entries of it. ``key+`` appends to a list. A held-out class
    given by number is removed if a later setting names other data, with a sentence for the user.
    """
    trust = (*TRUSTED, *trust)
    content: Any = {}
    notes: dict[str, str] = {}
    for setting in settings:
        before = _data(content)
        parts = setting.key.split(".") if setting.key else []
        if len(parts) > 1:
            content = _put(content, parts, setting.value, trust)
        else:
            content = _merge(content, {parts[0]: setting.value} if parts else setting.value, trust)
        notes = {name: note for name, note in notes.items() if _data(content).get(name) is None}
        notes |= _without_foreign_numbers(before, _data(content))
    return content, list(notes.values())


def _merge(old: Any, new: Any, trust: Sequence[str]) -> Any:
    if isinstance(old, dict) and _is_class(new):
        new = {"class_path": new}
    if not isinstance(new, dict):
        return new
    old = {"class_path": old} if _is_class(old) else old if isinstance(old, dict) else {}
    if old and new and old.keys().isdisjoint(_LEVELS) != new.keys().isdisjoint(_LEVELS):
        old, new = (
            {"init_args": block} if block.keys().isdisjoint(_LEVELS) else block for block in (old, new)
        )
    if old and new.get("class_path", old.get("class_path")) != old.get("class_path"):
        cls = _class(new["class_path"], trust)
        if cls is not None and cls is not _class(old.get("class_path"), trust):  # else the parser rejects it
            known, arguments = constructor_parameters(cls), old.get("init_args") or {}
            old = {"init_args": {key: value for key, value in arguments.items() if key in known}}
    out = dict(old)
    for key, value in new.items():
        if isinstance(key, str) and key.endswith("+"):
            key, before = key[:-1], out.get(key[:-1]) or []
            before = before if isinstance(before, list) else [before]
            out[key] = [*before, *(value if isinstance(value, list) else [value])]
        else:
            out[key] = _merge(out.get(key), value, trust)
    return out


def _put(old: Any, parts: Sequence[str], value: Any, trust: Sequence[str]) -> Any:
    """Return ``old`` with the value of a flag whose key has the given parts."""
    if not parts:
        is_table = isinstance(value, dict) and not any(isinstance(item, dict) for item in value.values())
        return value if is_table and value.keys().isdisjoint(_LEVELS) else _merge(old, value, trust)
    if isinstance(old, list) and old:  # the arguments of the item that was added last
        return [*old[:-1], _put(old[-1], parts, value, trust)]
    old = {"class_path": old} if _is_class(old) else old if isinstance(old, dict) else {}
    if old and parts[0] not in _LEVELS and not old.keys().isdisjoint(_LEVELS):
        parts = ["init_args", *parts]
    elif old and parts[0] in _LEVELS and old.keys().isdisjoint(_LEVELS):
        old = {"init_args": old}
    if len(parts) == 1 and (parts[0] in _LEVELS or parts[0].endswith("+")):
        return _merge(old, {parts[0]: value}, trust)
    return {**old, parts[0]: _put(old.get(parts[0]), parts[1:], value, trust)}


def _is_class(value: Any) -> bool:
    """Return whether a text looks like a class name: ``MALA`` does, ``auto`` does not."""
    return isinstance(value, str) and re.fullmatch(r"([^\W\d]\w*\.)*[A-Z]\w*", value) is not None


def _class(name: Any, trust: Sequence[str]) -> type | None:
    """Return the class of a short or long ``class_path``, or ``None`` if the parser will reject it."""
    if not isinstance(name, str):
        return None
    if "." in name:
        allowed = any(name.startswith(f"{package}.") for package in trust)
        try:
            found = pydoc.locate(name) if allowed else None
        except pydoc.ErrorDuringImport:
            return None
    else:
        homes = (importlib.import_module(home) for home in HOMES)
        found = next((getattr(home, name) for home in homes if hasattr(home, name)), None)
    return found if inspect.isclass(found) else None


def _data(content: Mapping[str, Any]) -> dict[str, Any]:
    section = content.get("data")
    arguments = section.get("init_args") if isinstance(section, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _without_foreign_numbers(before: Mapping[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Remove a held-out class given by number from ``now`` if the data have changed, and say so in words."""
    notes = {}
    path = before.get("path")
    for name in ("held_out_label", "normal_label") if path not in (None, now.get("path")) else ():
        label = before.get(name)
        labels = label if isinstance(label, list) else [label]
        if now.get(name) == label and any(isinstance(one, int) for one in labels):
            now[name] = None
            notes[name] = (
                f"{name} {label} is a class number of {path} and was left out for {now['path']}; add"
                f" --data.init_args.{name} NAME to hold out a class"
            )
    return notes


def location(keys: Sequence[str], settings: Sequence[Setting]) -> str:
    """Return ``file:line: key: `` for the start of a message, without unknown parts.

    The last setting that has the key, or the longest part of it, is named.
    """
    wanted = _short([part for key in keys for part in key.split(".")])
    if not wanted:
        files = {setting.source for setting in settings if setting.source is not None}
        return f"{files.pop()}: " if len(files) == 1 else ""
    best, where = 1, ""
    for setting in settings:
        if setting.source is not None:
            depth, line = _line(setting.source, wanted)
        else:
            given = setting.short_key.removesuffix(".class_path").split(".")
            depth, line = (len(given) if given == wanted[: len(given)] else 0), ""
        if depth >= best:
            best, where = depth, line
    return f"{where}{'.'.join(wanted)}: "


def _short(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if part not in ("init_args", "dict_kwargs")]


def _line(path: Path, key: Sequence[str]) -> tuple[int, str]:
    """Return the number of key parts that a recipe has, and the file and line of the deepest part."""
    node: Any = yaml.compose(path.read_text(encoding="utf-8"))
    depth, where = 0, ""
    for part in key:
        entries = _entries(node)
        if part not in entries and "init_args" in entries:
            entries = _entries(entries["init_args"][1])
        if part not in entries:
            break
        name, node = entries[part]
        depth, where = depth + 1, f"{path}:{name.start_mark.line + 1}: "
    return depth, where


def _entries(node: Any) -> dict[str, tuple[Any, Any]]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {name.value: (name, value) for name, value in pairs}
