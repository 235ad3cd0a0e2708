"""Write every generated block of docs/ again, from results/ alone: nothing is trained, nothing is downloaded.

python scripts/make_results.py            # what `make results` does
python scripts/make_results.py --check    # writes nothing and fails if a block is not up to date
"""

from __future__ import annotations

import base_study
import gallery
import study
from results_page import owners, write_or_check

if __name__ == "__main__":
    blocks = {**base_study.BLOCKS, **gallery.BLOCKS, **study.blocks()}
    if unwritten := owners().keys() - blocks.keys():
        raise SystemExit(f"no script writes {', '.join(sorted(unwritten))}")
    write_or_check(blocks)
