"""What `make demo` does: train the quickstart, test it, draw from it, and say where everything is."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from lebm.__main__ import main

RUN = Path("runs/demo")


def demo() -> int:
    if RUN.exists():
        shutil.rmtree(RUN)  # the demo owns this folder; every other run folder is yours
    for command in (
        ["fit", "-c", "quickstart", "--run_dir", str(RUN)],
        ["test", str(RUN)],
        ["sample", str(RUN), "-n", "100"],
    ):
        print("\n$ lebm " + " ".join(command), flush=True)
        if status := main(command):
            return status
    summary = json.loads((RUN / "summary.json").read_text())
    print(f"\nTrained in {summary['wall_time_seconds']:.0f} s. Pictures:")
    for picture in sorted((RUN / "images").rglob("*.png")):
        print(f"  {picture}")
    print("Next: lebm ls; lebm cp quickstart mine.yaml; lebm fit -c mine.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(demo())
