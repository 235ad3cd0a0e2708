"""Write docs/gallery.md: a card for every recipe, from its header and from results/.

Run it after a change of a recipe's header or of a result: `python scripts/gallery.py`. ``--check`` writes
nothing and fails if the page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from results_page import ROOT, write_or_check
from study import Cell, fitting, shown, stored_cells

FIELD = re.compile(r"# (Trains|Aims at|Settings|Data|Protocol|Weights|Status|Run|Override)\b *(.*)")
METHODS = {
    "LatentMLE": "latent_mle.md",
    "MultiStageNCE": "multistage_nce.md",
    "JointHierarchicalPrior": "joint_hierarchical.md",
    "DualMCMCTeaching": "dual_mcmc.md",
}
"""Class of a method to its page."""
SECTIONS = {
    "quickstart": "Quickstart",
    "latent_mle": "LatentMLE",
    "multistage_nce": "MultiStageNCE",
    "joint_hierarchical": "JointHierarchicalPrior",
    "dual_mcmc": "DualMCMCTeaching",
    "baselines": "Baselines",
}
"""Folder of recipes to its heading."""
PICTURES = {
    "quickstart": "quickstart_samples.png",
    "latent_mle/mnist": "latent_mle_mnist_samples.png",
    "latent_mle/mnist_normal_base": "latent_mle_mnist_normal_base_samples.png",
    "latent_mle/mnist_published": "latent_mle_mnist_published_samples.png",
    "multistage_nce/toy2d": "multistage_nce_toy2d_stages.png",
    "multistage_nce/mnist": "multistage_nce_mnist_samples.png",
    "multistage_nce/mnist_normal_base": "multistage_nce_mnist_normal_base_samples.png",
    "multistage_nce/mnist_conv": "multistage_nce_mnist_conv_samples.png",
    "multistage_nce/mnist_conv_normal_base": "multistage_nce_mnist_conv_normal_base_samples.png",
    "multistage_nce/mnist_two_stage": "dual_two_stage_samples.png",
    "multistage_nce/mnist_published": "multistage_nce_mnist_published_samples.png",
    "joint_hierarchical/mnist": "joint_hierarchical_layers.png",
    "joint_hierarchical/mnist_two_stage": "joint_mnist_two_stage_samples.png",
    "dual_mcmc/mnist": "dual_mcmc_samples.png",
}
"""Recipe to the picture in docs/images that one of its runs drew."""


def header(text: str) -> dict[str, str]:
    """The fields of a recipe's header, each as one line, and its first line as ``title``."""
    lines = text.splitlines()
    fields, name = {"title": lines[0].removeprefix("# ")}, ""
    for line in lines[1:]:
        match = FIELD.match(line)
        if match:
            name = match[1]
            fields[name] = match[2].strip()
        elif name and re.match(r"#\s{6,}\S", line):
            fields[name] += " " + line.lstrip("# ")
        elif not line.startswith("#"):
            break
    return fields


def recipes() -> dict[str, dict[str, str]]:
    """Name to header, for every recipe except overlays and blocks of data."""
    root = ROOT / "recipes"
    names = {file.relative_to(root).with_suffix("").as_posix(): file for file in root.rglob("*.yaml")}
    kept = {name: file for name, file in names.items() if name.split("/")[0] in SECTIONS}
    return {name: header(kept[name].read_text()) for name in sorted(kept)}


def minutes(*values: float) -> str:
    """CPU minutes, or their range."""
    ends = dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values)))
    return f"{' to '.join(ends)} CPU minutes"


def compared() -> Iterator[tuple[str, list[str], str]]:
    """Recipe, values and cost from the comparison on MNIST."""
    for row in fitting(stored_cells("samples"), {"cell": ["recipes", "two_stage"]}):
        distance = shown([row], "frechet_distance/digits64", "{:.1f}")
        error = shown([row], "reconstruction_mse", "{:.4f}")
        values = [f"Fréchet distance of samples, digit features: {distance}", f"reconstruction MSE: {error}"]
        yield row["settings"]["recipe"], values, minutes(row["cpu_minutes"])


def ranking(row: Cell) -> str:
    """How well a held-out digit is found."""
    auprc, rate = (row["figures"][name][0] for name in ("auprc", "anomaly_base_rate"))
    digit = row["settings"]["held_out_label"]
    return f"AUPRC with digit {digit} held out: {auprc:.3f}, by guessing {rate:.3f}"


def anomalies() -> Iterator[tuple[str, list[str], str]]:
    """Recipe, values and cost from the tables of held-out digits."""
    recipes = {
        "LatentMLE": "latent_mle/mnist_anomaly_published",
        "MultiStageNCE": "multistage_nce/mnist_anomaly",
    }
    for method, recipe in recipes.items():
        rows = fitting(stored_cells("anomaly"), {"cell": "published", "method": method})
        costs = [row["cpu_minutes"] for row in rows if row["cpu_minutes"] is not None]
        yield recipe, [ranking(row) for row in rows], f"{minutes(*costs)} per digit, where known"


def bases() -> Iterator[tuple[str, list[str], str]]:
    """Recipe, values and cost of the recipes with a fitted base, over seeds."""
    plans = {
        "latent_mle/mnist": {"cell": "recipes", "recipe": "latent_mle/mnist"},
        "multistage_nce/mnist": {"cell": "recipes", "recipe": "multistage_nce/mnist"},
        "multistage_nce/mnist_two_stage": {"cell": "recipes", "recipe": "multistage_nce/mnist_two_stage"},
        "multistage_nce/mnist_conv": {"cell": "samples"},
    }
    for recipe, wanted in plans.items():
        cells = fitting(stored_cells("base"), wanted)
        distance = shown(cells, "frechet_distance/digits64", "{:.2f}")
        alone = shown(cells, "frechet_distance/digits64/base", "{:.2f}")
        values = [f"Fréchet distance of samples, digit features: {distance}, by the mixture alone {alone}"]
        yield recipe, values, minutes(*(cell["cpu_minutes"] for cell in cells))


def others() -> Iterator[tuple[str, list[str], str]]:
    """Recipe, values and cost of the quickstart and of the verses."""
    (row,) = fitting(stored_cells("anomaly"), {"cell": "quickstart"})
    error = f"reconstruction MSE: {row['figures']['reconstruction_mse'][0]:.4f}"
    yield "quickstart", [ranking(row), error], minutes(row["cpu_minutes"])
    nats = "negative log-likelihood: {:.2f} nats per sentence, {:.2f} with a Gaussian prior"
    for name in ("kjv", "kjv_published"):
        ours, gaussian = fitting(stored_cells("verses"), {"cell": name})
        both = nats.format(ours["figures"]["nll"][0], gaussian["figures"]["nll"][0])
        yield f"latent_mle/{name}", [both], minutes(ours["cpu_minutes"])


def method(name: str) -> str:
    """The page of the method that a recipe trains."""
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    match = re.search(r"^model:\n  class_path: (\w+)", text, re.M)
    if match is None or match[1] not in METHODS:
        raise SystemExit(f"{name} names no method with a page; add it to METHODS of scripts/gallery.py")
    return METHODS[match[1]]


def card(name: str, fields: dict[str, str], values: list[str], cost: str) -> list[str]:
    """The lines of one card, an item of a list. The status is for recipes without stored values."""
    lines = [f"### {name}", ""]
    if name in PICTURES:
        lines += [f"![{name}](images/{PICTURES[name]})", ""]
    lines += [f"**{fields['title']}**", ""]
    if "Trains" in fields:
        lines += [f"Trains {fields['Trains']}", ""]
    if values:
        lines += [*(f"- {value}" for value in values), f"- cost: {cost}", ""]
    else:
        status = re.sub(r"docs/((?:\w+/)?(\w+)\.md)", r"[\2](\1)", fields["Status"])
        lines += [f"{status[0].upper()}{status[1:]}", ""]
    lines += ["```sh", *fields["Run"].split(" && "), "```", ""]
    links = [f"[recipe](../recipes/{name}.yaml)", f"[method]({method(name)})"]
    if values:
        page = re.search(r"docs/(results/\w+\.md)", fields["Status"])
        links.append(f"[results]({page[1] if page else 'results.md'})")
    return [*lines, " · ".join(links)]


def cards() -> str:
    """What follows the introduction, which is written by hand."""
    measured = (compared(), anomalies(), bases(), others())
    known = {name: (values, cost) for part in measured for name, values, cost in part}
    headers = recipes()
    unknown = (known.keys() | PICTURES.keys()) - headers.keys()
    if unknown:
        raise SystemExit(f"no such recipe: {', '.join(sorted(unknown))}")
    lines = []
    for folder, title in SECTIONS.items():
        mine = [name for name in headers if name.split("/")[0] == folder]
        mine.sort(key=lambda name: (name not in PICTURES, name not in known, name))
        lines += [f"## {title}", "", '<div class="grid cards" markdown>', ""]
        for name in mine:
            first, *rest = card(name, headers[name], *known.get(name, ([], "")))
            lines += [f"-   {first}", *(f"    {line}".rstrip() for line in rest), ""]
        lines += ["</div>", ""]
    return "\n".join(lines).strip()


BLOCKS = {"gallery": cards}

if __name__ == "__main__":
    write_or_check(BLOCKS)
