"""Write every generated block of docs/ from results/ and the headers of the recipes.

    python scripts/make_results.py            # as in `make results`: no training, no network
    python scripts/make_results.py --check    # writes nothing, and fails if a block is not up to date

A block is between `<!-- NAME -->` and `<!-- end -->` on one page of docs/. Most blocks are tables of studies.
One holds docs/gallery.md: a card per recipe that has run at full length, and a row per other recipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lebm.study import Study, grid

ROOT = Path(__file__).resolve().parents[1]
Blocks = Mapping[str, Callable[[], str]]
FIELD = re.compile(r"^# (Trains|Aims at|Settings|Data|Protocol|Weights|Status|Run|Override)\b *(.*)", re.M)
SECTIONS = {
    "quickstart": "Quickstart",
    "latent_mle": "LatentMLE",
    "multistage_nce": "MultiStageNCE",
    "joint_hierarchical": "JointHierarchicalPrior",
    "dual_mcmc": "DualMCMCTeaching",
    "baselines": "Baselines",
}
"""Headings by folder of recipes: the class, if the folder has the name of its page."""


def header(text: str) -> dict[str, str]:
    """Return the fields of a recipe header, each as one line, and its first line as ``title``."""
    comment = re.match(r"(#.*\n)+", text)[0]
    joined = re.sub(r"\n# {6,}(?=\S)", " ", comment)
    return {"title": joined.split("\n")[0].removeprefix("# "), **dict(FIELD.findall(joined))}


def recipes() -> dict[str, dict[str, str]]:
    """Return the headers by name of every recipe except overlays and blocks of data."""
    root = ROOT / "recipes"
    names = {file.relative_to(root).with_suffix("").as_posix(): file for file in root.rglob("*.yaml")}
    return {name: header(names[name].read_text()) for name in sorted(names) if name.split("/")[0] in SECTIONS}


def method(name: str) -> str:
    """Return the page of the method that a recipe trains."""
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    for folder, title in SECTIONS.items():
        if f"\nmodel:\n  class_path: {title}\n" in text:
            return f"{folder}.md"
    raise SystemExit(f"{name} names no method with a page; add it to SECTIONS of scripts/make_results.py")


def picture(name: str) -> str:
    """Return the picture that a run of a recipe drew; empty without one."""
    names = (f"{name.replace('/', '_')}_{kind}.png" for kind in ("samples", "stages", "layers"))
    return next((file for file in names if (ROOT / "docs" / "images" / file).exists()), "")


def linked(status: str) -> str:
    """Return a status with links to the pages that it names."""
    status = re.sub(r"docs/((?:\w+/)?(\w+)\.md)", r"[\2](\1)", status)
    return f"{status[0].upper()}{status[1:]}"


def card(name: str, fields: dict[str, str]) -> list[str]:
    """Return the lines of one card, an item of a list."""
    lines = [f"### {name}", ""]
    if file := picture(name):
        lines += [f"![{name}](images/{file})", ""]
    lines += [f"**{fields['title']}**", "", f"Trains {fields['Trains']}", "", linked(fields["Status"]), ""]
    lines += ["```sh", *fields["Run"].split(" && "), "```", ""]
    return [*lines, f"[recipe](../recipes/{name}.yaml) · [method]({method(name)})"]


def cards() -> str:
    """Return the cards and tables below the introduction of the gallery."""
    headers = recipes()
    lines = []
    for folder, title in SECTIONS.items():
        mine = [name for name in headers if name.split("/")[0] == folder]
        unrun = [name for name in mine if headers[name]["Status"].startswith("not yet run")]
        lines += [f"## {title}", "", '<div class="grid cards" markdown>', ""]
        for name in sorted(set(mine) - set(unrun), key=lambda name: (not picture(name), name)):
            first, *rest = card(name, headers[name])
            lines += [f"-   {first}", *(f"    {line}".rstrip() for line in rest), ""]
        lines += ["</div>", ""]
        if unrun:
            rows = [[f"[`{name}`](../recipes/{name}.yaml)", headers[name]["title"]] for name in unrun]
            lines += [grid(["not yet run at full length", ""], rows), ""]
    return "\n".join(lines).strip()


def publish(blocks: Blocks, check: bool) -> list[str]:
    """Write each block into its page, or only compare it; return the names of the blocks that differ.

    Raises:
        SystemExit: for a marker without a block, or a block without a marker.
    """
    found, changed = set(), []

    def written(match: re.Match[str]) -> str:
        name = match[1]
        if name not in blocks:
            raise SystemExit(f"no script writes {name}")
        found.add(name)
        block = f"<!-- {name} -->\n\n{blocks[name]()}\n\n<!-- end -->"
        changed.extend([name] if block != match[0] else [])
        return block

    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        new = re.sub(r"^<!-- (\w+) -->\n.*?^<!-- end -->", written, text, flags=re.S | re.M)
        if new != text and not check:
            page.write_text(new)
    if missing := sorted(blocks.keys() - found):
        raise SystemExit(f"no page of docs/ has <!-- {missing[0]} -->")
    return changed


def study_blocks() -> dict[str, Callable[[], str]]:
    """Return the tables of every study that has some, by name."""
    found: dict[str, Callable[[], str]] = {}
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        own = Study(path)
        found |= {title: partial(own.table, title) for title in own.plan.get("tables", {})}
    return found


def main(check: bool) -> None:
    blocks = {"gallery": cards, **study_blocks()}
    changed = publish(blocks, check)
    if check and changed:
        raise SystemExit(f"not up to date: {', '.join(changed)}; run: make results")
    print(f"{len(blocks)} blocks, {len(changed)} changed")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
