"""Make the data and the weights of the package.

    python scripts/make_embedded.py mnist PATH_TO_MNIST         # 10,000 images, equally many of every digit
    python scripts/make_embedded.py verses PATH_TO_KJV          # 4,600 verses of at most 20 words
    python scripts/make_embedded.py features PATH_TO_MNIST      # the digit network, a minute of one core

PATH_TO_MNIST is a folder with the parquet files of ``ylecun/mnist``, and PATH_TO_KJV one with ``train.txt``,
``validation.txt`` and ``test.txt``, one verse of the King James Bible per line. A fixed seed chooses the
rows. Test rows come from test splits, and validation images from the training split. Equal input gives equal
files under equal versions."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from lebm.data import open_images, to_unit_range
from lebm.metrics.features import DIGIT_WEIGHTS, digit_network

SEED, DIGITS, LONGEST = 20201, 10, 20
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": [str(digit) for digit in range(DIGITS)], "_type": "ClassLabel"},
}
EPOCHS, BATCH, RATE, SHIFT = 4, 128, 3e-3, 2
EMBEDDED = Path(__file__).parents[1] / "lebm" / "data" / "embedded"


def table(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.rglob(f"{split}*.parquet"))])


def balanced(labels: np.ndarray, sizes: list[int], source: np.random.RandomState) -> list[np.ndarray]:
    """Return disjoint sets of rows of the given sizes, balanced over the digits, in ascending order."""
    orders = [source.permutation(np.flatnonzero(labels == digit)) for digit in range(DIGITS)]
    parts = [np.split(rows, np.cumsum(sizes) // DIGITS)[:-1] for rows in orders]
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def recoded(png: bytes) -> bytes:
    """Return the pixels as the smallest PNG that Pillow writes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("L").save(buffer, format="PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def write(made: pa.Table, file: Path) -> None:
    pq.write_table(made, file, compression="zstd", compression_level=19)
    print(f"{file}: {len(made)} rows, {file.stat().st_size} bytes")


def mnist(folder: Path) -> None:
    source = np.random.RandomState(SEED)
    train, test = table(folder, "train"), table(folder, "test")
    train_rows, validation_rows = balanced(train["label"].to_numpy(), [8000, 1000], source)
    (test_rows,) = balanced(test["label"].to_numpy(), [1000], source)
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    splits = {"train": (train, train_rows), "validation": (train, validation_rows), "test": (test, test_rows)}
    for split, (whole, rows) in splits.items():
        chosen = whole.take(pa.array(rows))
        images = [{"bytes": recoded(image["bytes"].as_py()), "path": None} for image in chosen["image"]]
        columns = {"image": images, "label": chosen["label"].to_pylist()}
        write(pa.table(columns, schema=schema), EMBEDDED / f"mnist_{split}.parquet")


def verses(folder: Path) -> None:
    chance, seen = random.Random(SEED), set()
    for split, size in {"train": 4000, "validation": 300, "test": 300}.items():
        lines = (folder / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        own = [line for line in dict.fromkeys(lines) if line not in seen]
        seen.update(lines)  # some verses occur more than once
        short = [line for line in own if 0 < len(line.split()) <= LONGEST]
        write(pa.table({"text": chance.sample(short, size)}), EMBEDDED / f"verses_{split}.parquet")


def shifted(x: Tensor, source: torch.Generator) -> Tensor:
    """Move every image by up to ``SHIFT`` pixels, filled with background."""
    rows, batch = torch.arange(28), torch.arange(len(x))[:, None, None]
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, len(x)), generator=source)
    padded = pad(x, [SHIFT] * 4, value=-1.0)
    moved = padded[batch, 0, (rows + down[:, None])[:, :, None], (rows + right[:, None])[:, None, :]]
    return moved.unsqueeze(1)


def features(folder: Path) -> None:
    """Train the digit network on the labelled training images, and count errors on test images."""
    torch.manual_seed(SEED)
    source = torch.Generator().manual_seed(SEED)
    sets = {split: open_images(str(folder), split, image_size=28, channels=1) for split in ("train", "test")}
    images = {split: to_unit_range(torch.tensor(found.images[:])) for split, found in sets.items()}
    labels = {split: torch.tensor(found.labels[:], dtype=torch.long) for split, found in sets.items()}
    network, batches = digit_network(), len(images["train"]) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images["train"]), generator=source)[: batches * BATCH]
        for rows in order.split(BATCH):
            logits = network(shifted(images["train"][rows], source))
            loss = cross_entropy(logits, labels["train"][rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, DIGIT_WEIGHTS)
    with torch.no_grad():
        right = network(images["test"]).argmax(dim=1) == labels["test"]
    size, accuracy = DIGIT_WEIGHTS.stat().st_size, 100 * right.double().mean()
    print(f"{DIGIT_WEIGHTS}: {size} bytes, test accuracy {accuracy:.2f} %")


if __name__ == "__main__":
    made = {"mnist": mnist, "verses": verses, "features": features}
    if len(sys.argv) != 3 or sys.argv[1] not in made:
        raise SystemExit(__doc__)
    made[sys.argv[1]](Path(sys.argv[2]))
