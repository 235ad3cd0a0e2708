"""Write the table of costs in docs/scale_out.md: what a training of every recipe takes, by count.

    python scripts/write_cost.py            # a minute of one core; nothing is trained or downloaded

``--check`` writes nothing and fails if the page is not up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from lebm.config import recipes
from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request
from lebm.run.cost import run_cost

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale_out.md"
START, END = "<!-- costs -->\n", "<!-- end of costs -->\n"
OVERLAYS = ("loggers/", "inference/", "prior/")
HEAD = "| recipe | parameters | rows per step | GFLOP per step | steps | hours |\n|---|---|---|---|---|---|\n"


def row(name: str) -> str:
    """The line of a recipe."""
    with torch.device("meta"):
        cli = RecipeCLI(read_request("validate-recipe", ["-c", name]), trainer_too=False)
    model = cli.model
    trained = {id(value): value.numel() for part in model.networks().values() for value in part.parameters()}
    cost = run_cost(model, cli.datamodule, cli.config.trainer)
    steps = "unknown" if cost.steps is None else f"{cost.steps:,}"
    cells = [f"`{name}`", f"{sum(trained.values()):,}", f"{cost.batch_size}"]
    cells += [cost.gigaflops, steps, cost.duration.replace(" hours", "")]
    return "| " + " | ".join(cells) + " |\n"


def page() -> str:
    """The page with a new table between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    names = [name for name in recipes.names() if not name.startswith(OVERLAYS)]
    return before + START + "\n" + HEAD + "".join(map(row, names)) + "\n" + END + after


def main() -> None:
    new = page()
    if "--check" in sys.argv[1:]:
        sys.exit(new != PAGE.read_text(encoding="utf-8") and f"{PAGE} is not up to date")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
