"""Write every generated block of docs/ from results/ and the headers of the recipes.

    python scripts/make_results.py            # as in `make results`: no training, no network
    python scripts/make_results.py --check    # writes nothing, and fails if a block is not up to date

A block is between `<!-- NAME -->` and `<!-- end -->` on one page of docs/. Most blocks are tables of studies.
One holds docs/gallery.md: a card per recipe that has run at full length, and a row per other recipe."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from textwrap import indent

from lebm.study import Study, grid

ROOT = Path(__file__).resolve().parents[1]
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


def card(name: str, fields: dict[str, str]) -> str:
    """Return a card, an item of a list, whose status links the pages that it names."""
    status, file = re.sub(r"docs/((?:\w+/)?(\w+)\.md)", r"[\2](\1)", fields["Status"]), picture(name)
    parts = [
        f"### {name}",
        *([f"![{name}](images/{file})"] if file else []),
        f"**{fields['title']}**",
        f"Trains {fields['Trains']}",
        f"{status[0].upper()}{status[1:]}",
        "\n".join(["```sh", *fields["Run"].split(" && "), "```"]),
        f"[recipe](../recipes/{name}.yaml) · [method]({method(name)})",
    ]
    return "-   " + indent("\n\n".join(parts), "    ").lstrip()


def cards() -> str:
    """Return the cards and tables below the introduction of the gallery."""
    root, parts = ROOT / "recipes", []
    files = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}
    for folder, title in SECTIONS.items():
        own = {name: header(files[name].read_text()) for name in files if name.split("/")[0] == folder}
        unrun = [name for name, fields in own.items() if fields["Status"].startswith("not yet run")]
        run = sorted(own.keys() - unrun, key=lambda name: (not picture(name), name))
        parts += [f"## {title}", '<div class="grid cards" markdown>']
        parts += [*(card(name, own[name]) for name in run), "</div>"]
        if unrun:
            rows = [[f"[`{name}`](../recipes/{name}.yaml)", own[name]["title"]] for name in unrun]
            parts.append(grid(["not yet run at full length", ""], rows))
    return "\n\n".join(parts)


def main(check: bool) -> None:
    """Write each block into its page, or only compare it.

    Raises:
        SystemExit: for a marker without a block, a block without a marker, or a difference with ``check``.
    """
    blocks = {"gallery": cards}
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        own = Study(path)
        blocks |= {title: partial(own.table, title) for title in own.plan.get("tables", {})}
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
    if check and changed:
        raise SystemExit(f"not up to date: {', '.join(changed)}; run: make results")
    print(f"{len(blocks)} blocks, {len(changed)} changed")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
