"""Fixtures that the whole suite shares."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lebm.__main__ import main

MakeParquet = Callable[..., Path]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts background jobs so; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one: `make test-gpu` runs the tests that take it."""
    return torch.device(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take the fixture ``device``."""
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """No garbage collection during the imports, and none of what they made: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or some libraries complain at the exit


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image cache for the session, shared by parallel workers, away from the user's own."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lebm-cache"
    os.environ["LEBM_CACHE"] = str(folder)
    return folder


def tiny_recipe(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The tiny recipe in an empty folder that becomes the working folder."""
    patch.chdir(folder)
    for name in ("LEBM_DEBUG", "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        patch.delenv(name, raising=False)
    patch.setenv("LEBM_CACHE", str(folder.parent / "cache"))
    return Path(shutil.copy(Path(__file__).parent / "cli" / "tiny.yaml", "tiny.yaml"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny recipe; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        assert main(["fit", "-c", str(tiny_recipe(folder, patch)), "--trust", "tests"]) == 0
    return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with real data sets; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("LEBM_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set LEBM_DATA")
    return root


def png(array: np.ndarray) -> bytes:
    """The PNG file of an ``(H, W)`` or ``(H, W, 3)`` array."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def pictures(n: int, size: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Random pixels, ``(n, size, size)`` or ``(n, size, size, 3)``."""
    shape = (n, size, size) if channels == 1 else (n, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_parquet(
    file: Path,
    images: Sequence[bytes | None],
    labels: Sequence[object] | None,
    names: Sequence[str] | None = None,
) -> None:
    """A parquet file in the layout of the Hub's image data sets."""
    features: dict[str, object] = {"image": {"_type": "Image"}}
    columns: dict[str, object] = {"image": [{"bytes": image, "path": None} for image in images]}
    fields = [pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))]
    if labels is not None:
        text = bool(labels) and isinstance(labels[0], str)
        features["label"] = (
            {"names": list(names), "_type": "ClassLabel"}
            if names
            else {"dtype": "string" if text else "int64", "_type": "Value"}
        )
        columns["label"] = list(labels)
        fields.append(pa.field("label", pa.string() if text else pa.int64()))
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), file)


@pytest.fixture
def make_parquet(tmp_path: Path) -> MakeParquet:
    """Makes a folder of parquet files: ``make_parquet(train=40, test=20, size=8, channels=1, classes=4)``."""

    def make(
        folder: str = "parquet",
        *,
        size: int = 8,
        channels: int = 1,
        classes: int | None = 4,
        names: Sequence[str] | None = None,
        **splits: int,
    ) -> Path:
        named = names or (None if classes is None else [f"class {label}" for label in range(classes)])
        for number, (split, n) in enumerate(splits.items()):
            images = [png(picture) for picture in pictures(n, size, channels, seed=number)]
            labels = None if classes is None else [row % classes for row in range(n)]
            write_parquet(tmp_path / folder / f"{split}-00000-of-00001.parquet", images, labels, named)
        return tmp_path / folder

    return make


@pytest.fixture
def make_image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder ``split/class/number.png``: ``make_image_folder(train=8, test=4, size=8, channels=3,
    classes=2)``.
    """

    def make(
        folder: str = "pictures", *, size: int = 8, channels: int = 3, classes: int = 2, **splits: int
    ) -> Path:
        for number, (split, n) in enumerate(splits.items()):
            for row, picture in enumerate(pictures(n, size, channels, seed=number)):
                file = tmp_path / folder / split / f"class{row % classes}" / f"{row:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(picture))
        return tmp_path / folder

    return make
