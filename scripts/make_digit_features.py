"""Train the small digit network whose features ship inside the package.

    python scripts/make_digit_features.py PATH_TO_MNIST [DESTINATION]

PATH_TO_MNIST is a folder with the parquet files of ``ylecun/mnist``. The network sees the 60,000 training
images and their labels, each shifted at random by up to two pixels, for four epochs, about a minute of one
CPU core. Test images are only counted at the end. The weights' SHA-256 is printed; the same versions, machine
and thread count give the same one."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from lebm.data import open_images, to_unit_range
from lebm.metrics.features import DIGIT_WEIGHTS, digit_network

SEED, EPOCHS, BATCH, RATE = 20201, 4, 128, 3e-3
SHIFT = 2
LIMIT = 1024 * 1024


def read(path: Path, split: str) -> tuple[Tensor, Tensor]:
    found = open_images(str(path), split, image_size=28, channels=1)
    return to_unit_range(torch.tensor(found.images[:])), torch.tensor(found.labels[:], dtype=torch.long)


def shifted(x: Tensor, source: torch.Generator) -> Tensor:
    """Every image moved by up to ``SHIFT`` pixels; what comes in is background."""
    rows = torch.arange(28)
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, len(x)), generator=source)
    padded = pad(x, [SHIFT] * 4, value=-1.0)
    batch = torch.arange(len(x))[:, None, None]
    return padded[
        batch, 0, (rows + down[:, None])[:, :, None], (rows + right[:, None])[:, None, :]
    ].unsqueeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("destination", type=Path, nargs="?", default=DIGIT_WEIGHTS)
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    source = torch.Generator().manual_seed(SEED)
    x, label = read(arguments.mnist, "train")
    network = digit_network()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=source)[: batches * BATCH].split(BATCH):
            loss = cross_entropy(network(shifted(x[rows], source)), label[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    arguments.destination.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, arguments.destination
    )
    size = arguments.destination.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{size} bytes, more than the {LIMIT} that may ship")
    x, label = read(arguments.mnist, "test")
    with torch.no_grad():
        accuracy = (network(x).argmax(dim=1) == label).double().mean().item()
    digest = hashlib.sha256(arguments.destination.read_bytes()).hexdigest()
    print(f"{arguments.destination}: {size} bytes, test accuracy {100 * accuracy:.2f} %, SHA-256 {digest}")


if __name__ == "__main__":
    main()
