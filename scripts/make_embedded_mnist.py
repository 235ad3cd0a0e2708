"""Make the MNIST subset that ships inside the package.

    python scripts/make_embedded_mnist.py PATH_TO_MNIST [DESTINATION]

PATH_TO_MNIST is a folder with the parquet files of ``ylecun/mnist``. Training and validation rows come from
MNIST's training split and test rows from its test split, the same number of every digit, chosen by a fixed
seed. The same input gives the same files under the same versions of Pillow and pyarrow."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SEED = 20201
SIZES = {"train": 8000, "validation": 1000, "test": 1000}
DIGITS = 10
LIMIT = 3 * 1024 * 1024
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": [str(digit) for digit in range(DIGITS)], "_type": "ClassLabel"},
}


def read(folder: Path, split: str) -> pa.Table:
    files = sorted(folder.rglob(f"{split}*.parquet"))
    if not files:
        raise SystemExit(f"{folder}: no file {split}*.parquet")
    return pa.concat_tables([pq.read_table(file) for file in files])


def balanced(labels: np.ndarray, sizes: list[int], random: np.random.RandomState) -> list[np.ndarray]:
    """Disjoint sets of rows of the given sizes, each with equally many of every digit, in ascending order."""
    parts: list[list[np.ndarray]] = [[] for _ in sizes]
    for digit in range(DIGITS):
        rows = random.permutation(np.flatnonzero(labels == digit))
        start = 0
        for part, size in zip(parts, sizes, strict=True):
            part.append(rows[start : start + size // DIGITS])
            start += size // DIGITS
    return [np.sort(np.concatenate(part)) for part in parts]


def recoded(png: bytes) -> bytes:
    """The same pixels as the smallest PNG that Pillow writes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("L").save(buffer, format="PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def write(table: pa.Table, rows: np.ndarray, file: Path) -> None:
    chosen = table.take(pa.array(rows))
    images = [{"bytes": recoded(image["bytes"].as_py()), "path": None} for image in chosen["image"]]
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    columns = {"image": images, "label": chosen["label"].to_pylist()}
    pq.write_table(pa.table(columns, schema=schema), file, compression="zstd", compression_level=19)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    default = Path(__file__).parents[1] / "lebm" / "data" / "embedded"
    parser.add_argument("destination", type=Path, nargs="?", default=default)
    arguments = parser.parse_args()

    random = np.random.RandomState(SEED)
    train, test = read(arguments.mnist, "train"), read(arguments.mnist, "test")
    train_rows, validation_rows = balanced(
        train["label"].to_numpy(), [SIZES["train"], SIZES["validation"]], random
    )
    (test_rows,) = balanced(test["label"].to_numpy(), [SIZES["test"]], random)
    total = 0
    for split, table, rows in (
        ("train", train, train_rows),
        ("validation", train, validation_rows),
        ("test", test, test_rows),
    ):
        file = arguments.destination / f"mnist_{split}.parquet"
        write(table, rows, file)
        total += file.stat().st_size
        print(f"{file}: {len(rows)} images, {file.stat().st_size} bytes")
    if total > LIMIT:
        raise SystemExit(f"{total} bytes in all, more than the {LIMIT} that may ship")


if __name__ == "__main__":
    main()
