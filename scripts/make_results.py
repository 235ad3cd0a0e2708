"""Write every generated block of docs/ again, from results/ alone: nothing is trained, nothing is downloaded.

python scripts/make_results.py            # what `make results` does
python scripts/make_results.py --check    # writes nothing and fails if a block is not up to date
"""

from __future__ import annotations

import sys

import anomaly_table
import equal_time
import gallery
import write_comparison
import write_inference
import write_layers
import write_records
import write_results
import write_revision
import write_seeds
import write_text_results
from results_page import owners, publish

WRITERS = [anomaly_table, equal_time, write_comparison, write_inference, write_layers]
WRITERS += [write_records, write_results, write_revision, write_seeds, write_text_results]


def main() -> None:
    check = "--check" in sys.argv[1:]
    blocks = {name: build for writer in WRITERS for name, build in writer.BLOCKS.items()}
    unwritten = owners().keys() - blocks.keys() - {"gallery"}
    if unwritten:
        raise SystemExit(f"no script writes {', '.join(sorted(unwritten))}")
    changed = publish(blocks, check)
    if gallery.PAGE.read_text() != gallery.page():
        changed.append("gallery")
        if not check:
            gallery.PAGE.write_text(gallery.page())
    if check and changed:
        raise SystemExit(f"not up to date: {', '.join(changed)}; run: python scripts/make_results.py")
    print(f"{len(blocks) + 1} blocks, {len(changed)} changed")


if __name__ == "__main__":
    main()
