"""``lebm ls | cat | cp``: the packaged recipes; ``lebm pretrained``: the packaged models."""

from __future__ import annotations

import shlex
from pathlib import Path

from lebm import pretrained as models
from lebm.cli.flags import VerbParser, free
from lebm.config.recipes import blocks, find, included, is_measured, load_recipe, names, title
from lebm.config.request import check_data
from lebm.errors import UserError, printable, tell
from lebm.files import write_text


def ls(argv: list[str]) -> int:
    """Run ``lebm ls``."""
    VerbParser("ls", "List the recipes with their titles.").parse_args(argv)
    known = names()
    width = max(map(len, known))
    measured = {name for name, path in known.items() if is_measured(path)}
    for name, path in known.items():
        print(f"{name:<{width}} {'*' if name in measured else ' '} {title(path)}".rstrip())
    if measured:
        print("\n* run at full length, with the result in its header: lebm cat RECIPE")
    if shared := blocks():
        print(f"\nblocks that recipes include: {', '.join(shared)}")
    return 0


def pretrained(argv: list[str]) -> int:
    """Run ``lebm pretrained``."""
    what = "List the trained models of the package, each with the first line of its card."
    VerbParser("pretrained", what).parse_args(argv)
    for name, file in models.names().items():
        print(f"{models.PREFIX}{name}  {file.stat().st_size / 1e6:.2f} MB  {_summary(file)}")
    return 0


def _summary(model: Path) -> str:
    """Return the first line of the card beside a model: its method and data."""
    lines = model.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    after = lines.index("---", 1) + 1 if lines[:1] == ["---"] else 0  # below the head for the Hub
    return next((line for line in lines[after:] if line and not line.startswith("#")), "")


def cat(argv: list[str]) -> int:
    """Run ``lebm cat RECIPE``."""
    parser = VerbParser("cat", "Print a recipe, with the recipes and blocks that it includes as comments.")
    parser.add_argument("recipe", help="a name that lebm ls prints, or a path")
    path = find(parser.parse_args(argv).recipe)
    print(printable(path.read_text(encoding="utf-8")), end="")
    for file in included(path, load_recipe(path)):
        lines = file.read_text(encoding="utf-8").splitlines()
        print(f"\n# included from {printable(str(file))}")
        for line in lines:
            print(f"#   {printable(line)}")
    return 0


def cp(argv: list[str]) -> int:
    """Run ``lebm cp RECIPE DEST [--for FOLDER]``."""
    parser = VerbParser("cp", "Copy a recipe, as the start of your own.")
    parser.add_argument("recipe", help="a name that lebm ls prints, or a path")
    parser.add_argument("dest", type=Path, help="file, or existing folder")
    parser.add_argument(
        "--for",
        dest="data",
        metavar="FOLDER",
        help="images or vectors that the copy is fitted to: a folder, parquet files, a Hub name, a .npy or"
        " .npz file, or an IDX file (default: the data of the recipe)",
    )
    parser.add_argument("--force", action="store_true", help="replace DEST if it exists")
    chosen = parser.parse_args(argv)
    source = find(chosen.recipe)
    target = chosen.dest / source.name if chosen.dest.is_dir() else chosen.dest
    free(target, chosen.force, "name")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder for the copy")
    if chosen.data is None:
        text, told = source.read_text(encoding="utf-8"), []
    else:
        check_data(chosen.data, "--for")
        from lebm.config.fitting import check_kind, fitted
        from lebm.data.survey import survey

        check_kind(source, chosen.data)
        found = survey(chosen.data)
        text, decided = fitted(source, found, target.parent)
        told = [found.line, *decided]
    write_text(target, text)
    for sentence in [*told, f"next: lebm fit -c {shlex.quote(str(target))}"]:
        tell(f"{target}: {sentence}")
    return 0
