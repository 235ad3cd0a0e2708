"""Write every generated block of docs/ again, from results/ alone: nothing is trained, nothing is downloaded.

python scripts/make_results.py            # what `make results` does
python scripts/make_results.py --check    # writes nothing and fails if a block is not up to date
"""

from __future__ import annotations

import anomaly_table
import base_study
import equal_time
import gallery
import grey_table
import write_comparison
import write_inference
import write_layers
import write_records
import write_results
import write_revision
import write_text_results
from results_page import owners, write_or_check

WRITERS = [anomaly_table, base_study, equal_time, gallery, grey_table, write_comparison, write_inference]
WRITERS += [write_layers, write_records, write_results, write_revision, write_text_results]


if __name__ == "__main__":
    blocks = {name: build for writer in WRITERS for name, build in writer.BLOCKS.items()}
    unwritten = owners().keys() - blocks.keys()
    if unwritten:
        raise SystemExit(f"no script writes {', '.join(sorted(unwritten))}")
    write_or_check(blocks)
