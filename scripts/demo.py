"""Demo for `make demo`: train the quickstart, test it, draw from it, and write a report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lebm.__main__ import main
from lebm.run.folder import free_folder

RUN = free_folder(Path("runs/demo"))
PAGE = RUN / "report.html"


def demo() -> int:
    for command in (
        ["fit", "-c", "quickstart", "--run_dir", str(RUN)],
        ["test", str(RUN)],
        ["sample", str(RUN), "-n", "100"],
        ["report", str(RUN), "--out", str(PAGE)],
    ):
        print("\n$ lebm " + " ".join(command), flush=True)
        if status := main(command):
            return status
    summary = json.loads((RUN / "summary.json").read_text())
    print(f"\nTrained in {summary['wall_time_seconds']:.0f} s. Open this page in a browser:")
    print(f"  {PAGE.resolve().as_uri()}")
    print("Next: lebm ls; lebm cp quickstart mine.yaml; lebm fit -c mine.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(demo())
