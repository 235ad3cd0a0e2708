"""Make the text that ships inside the package.

    python scripts/make_embedded_text.py PATH_TO_KJV [DESTINATION]

PATH_TO_KJV is a folder with ``train.txt``, ``validation.txt`` and ``test.txt``, one verse of the King James
Bible a line. Verses of at most 20 words are kept, chosen by a fixed seed; each split comes from the split of
the same name."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SEED = 20201
SIZES = {"train": 4000, "validation": 300, "test": 300}
LONGEST = 20
LIMIT = 512 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verses", type=Path)
    default = Path(__file__).parents[1] / "lebm" / "data" / "embedded"
    parser.add_argument("destination", type=Path, nargs="?", default=default)
    arguments = parser.parse_args()

    chance, total, seen = random.Random(SEED), 0, set()
    for split, size in SIZES.items():
        lines = (arguments.verses / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        short = [
            line for line in dict.fromkeys(lines) if 0 < len(line.split()) <= LONGEST and line not in seen
        ]
        seen.update(lines)  # some verses occur more than once
        chosen = chance.sample(short, size)
        file = arguments.destination / f"verses_{split}.parquet"
        pq.write_table(pa.table({"text": chosen}), file, compression="zstd", compression_level=19)
        total += file.stat().st_size
        print(f"{file}: {size} of {len(short)} verses, {file.stat().st_size} bytes")
    if total > LIMIT:
        raise SystemExit(f"{total} bytes in all, more than the {LIMIT} that may ship")


if __name__ == "__main__":
    main()
