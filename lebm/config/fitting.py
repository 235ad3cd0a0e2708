"""A recipe of images, rewritten for other images: shapes of the networks, and the section of the data."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lebm.config.blocks import standalone
from lebm.data.sets import HELD_OUT
from lebm.data.splits import size_in_rows
from lebm.data.survey import Survey
from lebm.errors import UserError, one_line

__all__ = ["check_kind", "fitted"]

_SHAPES = ("out_shape", "in_shape")
_ANY_SIZE = ("MLPGenerator", "MLPEncoder")
_LARGEST = 64
_KEPT = ("eval_batch_size", "seed", "flip", "num_workers", "drop_last")
_SHARE = 0.1
_FEW_STEPS = 1000
_TEXTS = (".txt", ".text")
_ROWS = {
    "embedded:mnist": 8_000,
    "ylecun/mnist": 60_000,
    "zalando-datasets/fashion_mnist": 60_000,
    "uoft-cs/cifar10": 50_000,
    "ufldl-stanford/svhn": 73_257,
    "ufldl-stanford/svhn extra": 531_131,
    "flwrlabs/celeba": 162_770,
    "korexyz/celeba-hq-256x256": 28_000,
}
"""Training rows of the data sets of the recipes, so that nothing has to be downloaded or opened."""


def fitted(path: Path, found: Survey) -> tuple[str, list[str]]:
    """The text of a recipe for a data set.

    The copy has the networks of the recipe, with the channels of the images. A recipe with convolutions keeps
    its image size, and the images are resized to it. Fully connected networks take the size of the images,
    and at most 64 px.

    Args:
        path: the recipe.
        found: what the data set holds.

    Returns:
        The text, and sentences that say what was decided.

    Raises:
        UserError: for a recipe that is not of images or starts from another run, and for an array of another
            size than that of the networks.
    """
    text, recipe, root = _of_images(path, found.path)
    shapes = list(_shapes(_child(root, "model"), ""))
    shape = _shape(path, shapes, found)
    before = recipe["data"].get("init_args") or {}
    section = _data_section(before, found, shape)
    edits = [(node.start_mark.index, node.end_mark.index, str(list(shape))) for _, node in shapes]
    edits += [(*span, new) for span, new in _last_layers(_child(root, "model"), shape)]
    held_out = next((f"{name} {before[name]}" for name in HELD_OUT if before.get(name) is not None), None)
    if held_out and found.normal is None:
        edits += _without_anomalies(root, text)
    data = _child(root, "data")
    start = next(key.start_mark.index for key, value in root.value if value is data)
    edits.append((start, data.end_mark.index, section))
    for first, last, new in sorted(edits, reverse=True):
        text = text[:first] + new + text[last:]
    arguments = yaml.safe_load(section)["data"]["init_args"]
    names = ("image_size", "channels", "validation_size", "batch_size")
    decided = ", ".join(f"{name} {arguments[name]}" for name in names if name in arguments)
    said = [*found.remarks, decided, *_resized(found, shape), *_few_steps(recipe, arguments, found)]
    if found.normal is not None:
        said.append(
            f"all training images are of the class {found.normal!r}, and the test images of others too:"
            " normal_label counts those as anomalies"
        )
    elif held_out:
        said.append(
            f"{held_out} is of the recipe's own data and was left out; to hold"
            " out a class, add --data.init_args.held_out_label NAME and the callback AnomalyDetection"
        )
    header = f"# {one_line(f'{path.stem}, for {found.path}')}\n#\n# Data     {found.line}\n\n"
    return header + _without_header(text), said


def check_kind(path: Path, data: str) -> None:
    """Refuse a recipe or data that are not of images, before the data are looked at.

    Args:
        path: the recipe.
        data: the data set, as the user names it.

    Raises:
        UserError: with what to do instead.
    """
    _of_images(path, data)


def _of_images(path: Path, data: str) -> tuple[str, dict[str, Any], Any]:
    """The text of a recipe of images, its content and its nodes."""
    text = standalone(path)
    recipe = yaml.safe_load(text)
    model, kind = recipe.get("model") or {}, (recipe.get("data") or {}).get("class_path")
    inference = (model.get("init_args") or {}).get("inference") or {}
    if "backbone" in (inference.get("init_args") or {}):
        raise UserError(f"{path}: this recipe starts from the networks of another run; fit that one's recipe")
    kind = str(kind).rpartition(".")[2]
    is_file = data.lower().endswith(_TEXTS)
    if kind == "TextData":
        splits = " --data.init_args.validation_size 0.1 --data.init_args.test_split null" if is_file else ""
        raise UserError(
            f"{path}: not a recipe of images, which --for is about. A recipe of sentences fits any sentences:"
            f" copy it without --for, and train with lebm fit -c DEST --data.init_args.path"
            f" {shlex.quote(data)}{splits}"
        )
    root = yaml.compose(text)
    if kind != "ImageData" or not any(_shapes(_child(root, "model"), "")):
        raise UserError(f"{path}: not a recipe of images; lebm ls prints what there is")
    if is_file or (Path(data) / "train.txt").is_file():
        raise UserError(
            f"--for {data}: these are sentences, and {path} is a recipe of images; start from a recipe of"
            " sentences, such as latent_mle/text_small"
        )
    return text, recipe, root


def _shape(path: Path, shapes: list[tuple[str, Any]], found: Survey) -> tuple[int, int, int]:
    """Channels, height and width that the networks can do and the data can have."""
    channels, height, width = found.shape
    own = [int(size.value) for size in shapes[0][1].value[1:]]
    free = all(cls in _ANY_SIZE for cls, _ in shapes)
    if found.is_array:
        if not free and [height, width] != own:
            raise UserError(
                f"{path}: its networks make images of {own[1]} x {own[0]} pixels, and the array has"
                f" {width} x {height}; give a folder of images, which are resized, or a recipe such as"
                " latent_mle/mnist, whose networks take any size"
            )
        return channels, height, width
    side = min(height, width, _LARGEST) if free else own[0]
    return channels, side, side


def _resized(found: Survey, shape: tuple[int, int, int]) -> list[str]:
    """What to say if the images are shrunk or enlarged."""
    _, height, width = found.shape
    if found.is_array or shape[1] == min(height, width):
        return []
    images = f"images of {width} x {height} pixels" + ("" if found.same_size else " or more")
    made = "shrunk" if shape[1] < min(height, width) else "enlarged" if found.same_size else "resized"
    return [f"the {images} are {made} to {shape[2]} x {shape[1]}, the size of the recipe's networks"]


def _data_section(before: dict[str, Any], found: Survey, shape: tuple[int, int, int]) -> str:
    count = found.count
    arguments: dict[str, Any] = {"path": found.path}
    if not found.is_array:
        arguments |= {"image_size": shape[1], "channels": shape[0]}
        if found.train_split != "train":
            arguments["train_split"] = found.train_split
        if found.test_split is None:
            arguments["test_split"] = None
    if found.normal is not None:
        arguments |= {"normal_label": found.normal, "anomaly_split": "official"}
    if not found.has_validation:
        arguments["validation_size"] = _SHARE
        count -= size_in_rows(_SHARE, count)
    if count < 1:
        raise UserError(f"data path {found.path!r}: {found.count} images are too few to train on")
    arguments["batch_size"] = min(before.get("batch_size", 100), count)
    kept = [name for name in _KEPT if name in before and not (found.is_array and name not in _KEPT[:2])]
    arguments |= {name: before[name] for name in kept}
    kind = "ArrayData" if found.is_array else "ImageData"
    section = {"data": {"class_path": kind, "init_args": arguments}}
    return yaml.safe_dump(section, sort_keys=False, allow_unicode=True, width=sys.maxsize)


def _few_steps(recipe: dict[str, Any], data: dict[str, Any], found: Survey) -> list[str]:
    """What to say if the epochs of the recipe are few steps with these data."""
    epochs, validation = (recipe.get("trainer") or {}).get("max_epochs"), data.get("validation_size")
    if not epochs or epochs < 0:
        return []
    rows = found.count - (size_in_rows(validation, found.count) if validation else 0)
    per_epoch = _batches(rows, data)
    if epochs * per_epoch >= _FEW_STEPS:
        return []
    before = recipe["data"]["init_args"]
    rows_before = _known_rows(before)
    steps_before = 0 if rows_before is None else epochs * _batches(rows_before, before)
    steps, whose = max((_FEW_STEPS, ""), (steps_before, ", as many as with the recipe's own data"))
    more = -(-steps // per_epoch)
    flags = f"--trainer.max_epochs {more}"
    decay = (recipe["model"]["init_args"].get("optimizer") or {}).get("lr_decay", 1.0)
    if decay != 1:  # a factor per epoch, of all networks or of each
        each = decay if isinstance(decay, dict) else {"": decay}
        for name, factor in each.items():
            key = f"lr_decay.{name}" if name else "lr_decay"
            flags += f" --model.init_args.optimizer.{key} {factor ** (epochs / more):.6g}"
    return [
        f"{epochs * per_epoch} training steps are few: raise --trainer.max_epochs ({epochs}) or lower"
        f" --data.init_args.batch_size; {flags} makes {more * per_epoch:,} steps{whose}"
    ]


def _known_rows(settings: dict[str, Any]) -> int | None:
    """Training rows of a recipe's own data, from a table; ``None`` for other data."""
    path, split = settings.get("path"), settings.get("train_split", "train")
    rows = _ROWS.get(str(path) if split == "train" else f"{path} {split}")
    if rows is None:
        return None
    rows -= size_in_rows(settings.get("validation_size") or 0, rows)
    if settings.get("held_out_label") is not None:
        rows = rows * 9 // 10
    return min(rows, settings.get("limit_train") or rows)


def _batches(rows: int, data: dict[str, Any]) -> int:
    """Batches per epoch."""
    size = data.get("batch_size", 100)
    return (rows if data.get("drop_last", True) else rows + size - 1) // size


def _child(node: Any, name: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _shapes(node: Any, cls: str) -> Iterator[tuple[str, Any]]:
    """Every shape of an image below a node, with the class that takes it."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _shapes(item, cls)
    elif isinstance(node, yaml.MappingNode):
        named = _child(node, "class_path")
        cls = cls if named is None else named.value
        for key, value in node.value:
            if key.value in _SHAPES and isinstance(value, yaml.SequenceNode) and len(value.value) == 3:
                yield cls, value
            else:
                yield from _shapes(value, cls)


def _last_layers(node: Any, shape: tuple[int, int, int]) -> Iterator[tuple[tuple[int, int], str]]:
    """The layer of a ladder that gives the image, with the channels of ``shape``: its place and new text."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _last_layers(item, shape)
    elif isinstance(node, yaml.MappingNode):
        named, arguments = _child(node, "class_path"), _child(node, "init_args")
        if named is not None and named.value == "LadderGenerator":
            last = _child(arguments, "blocks").value[0].value[-1]
            kind = last.value.split()[0]
            size = math.prod(shape) if kind == "linear" else shape[0]
            yield (last.start_mark.index, last.end_mark.index), f"{kind} {size}"
        for _, value in node.value:
            yield from _last_layers(value, shape)


def _without_anomalies(root: Any, text: str) -> list[tuple[int, int, str]]:
    """Take out the callback that needs a held-out class."""
    callbacks = _child(_child(root, "trainer"), "callbacks")
    for item in callbacks.value if callbacks is not None and callbacks.flow_style else ():
        if getattr(item, "value", None) == "AnomalyDetection":
            end = item.end_mark.index
            rest = len(text[end:]) - len(text[end:].lstrip(" ,"))
            first = len(text[: item.start_mark.index].rstrip(" "))
            return [(first, end + rest, "" if text[end + rest] == "\n" else " ")]
    return []


def _without_header(text: str) -> str:
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    return "".join(lines[first:])
