"""Count what a training of every recipe takes, and write the table of docs/scale_out.md.

python scripts/write_cost.py count      # results/costs.json; minutes, nothing is trained or downloaded
python scripts/write_cost.py write      # the table only

The last column comes from `python -m benchmarks.full_size`.
"""

from __future__ import annotations

from results_page import arguments, grid, keep, publish, stored

from lebm.config import recipes

HEAD = ["recipe", "parameters", "rows per step", "GFLOP per step", "steps", "hours", "memory, MiB"]


def row(name: str) -> list[str]:
    """The line of a recipe."""
    import torch  # here, because the table alone needs none of this

    from lebm.config.parser import RecipeCLI
    from lebm.config.request import read_request
    from lebm.run.cost import run_cost

    with torch.device("meta"):
        cli = RecipeCLI(read_request("validate-recipe", ["-c", name]), trainer_too=False)
    model = cli.model
    trained = {id(value): value.numel() for part in model.networks().values() for value in part.parameters()}
    cost = run_cost(model, cli.datamodule, cli.config.trainer)
    steps = "unknown" if cost.steps is None else f"{cost.steps:,}"
    cells = [f"`{name}`", f"{sum(trained.values()):,}", f"{cost.batch_size}"]
    return [*cells, cost.gigaflops, steps, cost.duration.replace(" hours", "")]


def costs() -> str:
    memory = stored("full_size")
    return grid(HEAD, [[*row, f"{memory[row[0].strip('`')]:,}"] for row in stored("costs")])


BLOCKS = {"costs": costs}


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("verb", choices=("count", "write"))
    if parser.parse_args().verb == "count":
        keep("costs", [row(name) for name in recipes.experiments()])
    publish(BLOCKS)
