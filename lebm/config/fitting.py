"""Recipes for other images or vectors: overlays with the data and the shapes of the networks."""

import inspect
import math
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lebm.config import recipes
from lebm.config.recipes import merged, read
from lebm.data import ArrayData, ImageData
from lebm.data.images import HELD_OUT
from lebm.data.splits import size_in_rows
from lebm.data.survey import Survey
from lebm.errors import UserError, one_line

_ANY_SIZE = ("MLPGenerator", "MLPEncoder")
_LARGEST = 64
_KEPT = ("batch_size", "eval_batch_size", "seed", "anomaly_split", "flip", "num_workers", "drop_last")
_SHARE = 0.1
_FEW_STEPS = 1000
_TEXTS = (".txt", ".text")


class _Dumper(yaml.SafeDumper):
    """A YAML writer that keeps a list on one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True)
)


def fitted(path: Path, found: Survey, folder: Path = Path()) -> tuple[str, list[str]]:
    """Return an overlay that fits a recipe to a data set, and sentences about the changes.

    The networks stay, with the channels of the images. Networks with convolutions keep the image size of the
    recipe, and the images are resized to it. Fully connected networks take the size of the images, at most
    64 px. A recipe that does not ship with lebm is included by its path relative to ``folder``.

    Raises:
        UserError: for a recipe of sentences or one that starts from another run, for data of another kind,
            and for an array whose size the networks cannot produce.
    """
    recipe = check_kind(path, found.path)
    is_vector = len(found.shape) == 1
    if is_vector != (recipe["data"]["class_path"] == "ArrayData"):
        own, other = ("images", "vectors")[:: 1 if is_vector else -1]
        raise UserError(
            f"{path}: a recipe of {own}, but {found.path} contains {other}; start from a recipe of {other},"
            f" such as latent_mle/{'vectors' if is_vector else 'mnist'}"
        )
    before = recipe["data"].get("init_args") or {}
    shape = found.shape if is_vector else _shape(path, list(_shapes(recipe["model"], "")), found)
    arguments = _arguments(before, found, shape)
    section = {"class_path": "ArrayData" if found.is_array else "ImageData", "init_args": arguments}
    known = {file: name for name, file in recipes.names().items()}
    name = known.get(path) or os.path.relpath(path, folder)
    overlay: dict[str, Any] = {"include": name, "data": section}
    if is_vector:
        overlay["latent_dim"] = shape[0]
    elif changed := _resized(recipe["model"], shape):
        overlay["model"] = changed
    names = ("image_size", "channels", "validation_size", "batch_size")
    said = [", ".join(f"{key} {arguments[key]}" for key in names if key in arguments)]
    if not found.is_array and shape[1] != min(found.shape[1:]):
        said.append(f"the images are resized to {shape[2]} x {shape[1]}, the size of the recipe's networks")
    epochs = (recipe.get("trainer") or {}).get("max_epochs") or -1
    aside = (arguments.get(f"{part}_size") or 0 for part in ("validation", "test"))
    rows = found.count - sum(size_in_rows(size, found.count) for size in aside)
    steps = epochs * (rows // arguments["batch_size"])
    if 0 < steps < _FEW_STEPS:
        more = epochs * math.ceil(_FEW_STEPS / steps)
        said.append(
            f"{steps} training steps are few; for more of them, add --trainer.max_epochs {more}"
            " --model.init_args.optimizer.lr_decay 1"
        )
    held_out = {key: before[key] for key in HELD_OUT if before.get(key) is not None}
    if found.normal is not None:
        said.append(
            f"all training images have the class {found.normal!r}, and test images have other classes too:"
            " normal_label counts the other classes as anomalies"
        )
    elif held_out:
        callbacks = (recipe.get("trainer") or {}).get("callbacks") or []
        if "AnomalyDetection" in callbacks:
            overlay["trainer"] = {"callbacks": [name for name in callbacks if name != "AnomalyDetection"]}
        key, label = held_out.popitem()
        said.append(
            f"{key} {label} applies only to the data of the recipe and was left out; to hold out a class, add"
            " --data.init_args.held_out_label NAME and the callback AnomalyDetection"
        )
    header = (
        f"# {one_line(f'{path.stem}, for {found.path}')}\n#\n# Data     {found.line}\n"
        f"# Includes {one_line(name)}, printed by lebm cat {one_line(shlex.quote(name))}\n\n"
    )
    text = yaml.dump(overlay, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return header + text, said


def check_kind(path: Path, data: str) -> dict[str, Any]:
    """Return the merged content of a recipe of images or vectors; reject recipes and data of sentences."""
    recipe = merged(read(path))[0]
    model, kind = recipe.get("model") or {}, (recipe.get("data") or {}).get("class_path")
    inference = (model.get("init_args") or {}).get("inference") or {}
    if "backbone" in (inference.get("init_args") or {}):
        raise UserError(f"{path}: starts from the networks of another run; name the recipe of that run")
    kind = str(kind).rpartition(".")[2]
    if kind == "TextData" or data.lower().endswith(_TEXTS) or (Path(data) / "train.txt").is_file():
        raise UserError(
            f"--for {data}: sentences need no --for, because recipes of sentences fit any; copy one, such as"
            " latent_mle/text_small, without --for and run lebm fit -c DEST --data.init_args.path"
            f" {shlex.quote(data)}"
            + (" --data.init_args.test_split null" if data.lower().endswith(_TEXTS) else "")
        )
    if kind != "ArrayData" and (kind != "ImageData" or not any(_shapes(model, ""))):
        raise UserError(f"{path}: not a recipe of images or vectors; lebm ls lists the recipes")
    return recipe


def _shapes(section: Any, cls: str) -> Iterator[tuple[str, list[int]]]:
    """Yield every image shape in a section of a recipe, with its class."""
    if isinstance(section, dict):
        cls = section.get("class_path", cls)
        for key, value in section.items():
            if key in ("out_shape", "in_shape"):
                yield cls, value
            else:
                yield from _shapes(value, cls)


def _resized(section: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the changes of a section for images of another shape."""
    changed: dict[str, Any] = {}
    for key, value in section.items():
        if key in ("out_shape", "in_shape"):
            changed |= {key: list(shape)} if value != list(shape) else {}
        elif isinstance(value, dict) and (below := _resized(value, shape)):
            changed[key] = below
    if changed and section.get("class_path") == "LadderGenerator":  # its last layer makes the image
        blocks = [list(block) for block in section["init_args"]["blocks"]]
        kind = blocks[0][-1].split()[0]
        blocks[0][-1] = f"{kind} {math.prod(shape) if kind == 'linear' else shape[0]}"
        changed["init_args"]["blocks"] = blocks
    return changed


def _arguments(before: dict[str, Any], found: Survey, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the data arguments: the recipe's where they hold for any images, else the defaults."""
    known = inspect.signature(ArrayData if found.is_array else ImageData).parameters
    arguments: dict[str, Any] = {"path": found.path}
    if not found.is_array:
        arguments |= {"image_size": shape[1], "channels": shape[0]}
        for name, value in (("train_split", found.train_split), ("test_split", found.test_split)):
            if value != known[name].default or name in before:
                arguments[name] = value
    if found.normal is not None:
        arguments |= {"normal_label": found.normal, "anomaly_split": "official"}
    count = found.count
    if not found.has_validation:
        arguments["validation_size"] = _SHARE
        count -= size_in_rows(_SHARE, count)
    if found.is_array and found.test_split is None:
        arguments["test_size"] = _SHARE
        count -= size_in_rows(_SHARE, found.count)
    arguments["batch_size"] = min(before.get("batch_size", 100), count)
    others = (name for name in before if name in known and name not in (*arguments, *_KEPT))
    return arguments | {name: known[name].default for name in others}


def _shape(path: Path, shapes: list[tuple[str, list[int]]], found: Survey) -> tuple[int, ...]:
    """Return channels, height and width that suit both networks and data."""
    channels, height, width = found.shape
    own = shapes[0][1][1:]
    free = all(cls in _ANY_SIZE for cls, _ in shapes)
    if found.is_array:
        if not free and [height, width] != own:
            raise UserError(
                f"{path}: its networks make images of {own[1]} x {own[0]} pixels, but the array has"
                f" {width} x {height}; name a folder of images, which are resized, or a recipe whose networks"
                " take any size, such as latent_mle/mnist"
            )
        return channels, height, width
    side = min(height, width, _LARGEST) if free else own[0]
    return channels, side, side
