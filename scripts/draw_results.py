"""Draw docs/images/results_*.svg, the figures of docs/results, from results/*.jsonl alone.

python scripts/draw_results.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from lebm.study import fitting, read_cells, value_of

ROOT = Path(__file__).resolve().parents[1]

DISTANCE = "frechet_distance/digits64"
FLOOR = "training images/distance"
POINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LatentMLE, published chains": ("C0", "samples", {"cell": "equal_time", "method": "LatentMLE"}),
    "LatentMLE, encoder and pool": (
        "C0",
        "stages",
        {"cell": "recipes", "recipe": "latent_mle/mnist_normal_base"},
    ),
    "MultiStageNCE, published chains": ("C1", "samples", {"cell": "equal_time", "method": "MultiStageNCE"}),
    "MultiStageNCE, exact chains": (
        "C1",
        "stages",
        {"cell": "recipes", "recipe": "multistage_nce/mnist_normal_base"},
    ),
    "MultiStageNCE, convolutional": (
        "C1",
        "stages",
        {"cell": "recipes", "recipe": "multistage_nce/mnist_conv_normal_base"},
    ),
    "mixture and one ratio, convolutional": ("C3", "base", {"cell": "samples"}),
    "JointHierarchicalPrior": ("C2", "samples", {"cell": "equal_time", "method": "JointHierarchicalPrior"}),
    "DualMCMCTeaching, revised": ("C4", "revision", {"cell": "recipe"}),
    "VAE": ("0.5", "samples", {"cell": "equal_time", "method": "VAE"}),
    "VAE, convolutional, sigma 1.5": ("0.5", "stages", {"cell": "vae", "sigma": 1.5}),
    "alternating back-propagation": (
        "0.5",
        "samples",
        {"cell": "equal_time", "method": "alternating back-propagation"},
    ),
}
"""Entries of the figure of the whole toolkit: colour, study and filter."""
NUDGES = {
    "LatentMLE, published chains": (6, -11),
    "JointHierarchicalPrior": (-112, -3),
    "VAE": (-6, 8),
    "VAE, convolutional, sigma 1.5": (6, -9),
}
"""Offsets of labels that would overlap, in points from their mark."""
DIGITS = (1, 4, 5, 7, 9)


def values(name: str, wanted: dict[str, Any], figure: str) -> list[float]:
    """Return a figure of the cells that match a filter, by their seeds."""
    found = [
        value_of(cell, figure)[0] for cell in fitting(read_cells(ROOT / "results" / f"{name}.jsonl"), wanted)
    ]
    return [value for value in found if value is not None]


def bars(axes: Any, x: float, own: list[float], **style: Any) -> None:
    """Draw the mean of some values, and a line from the lowest to the highest."""
    axes.plot([x, x], [min(own), max(own)], color=style["color"], lw=1.5)
    axes.plot([x], [mean(own)], "o", ms=6, **style)


def toolkit(axes: Any) -> None:
    """Draw CPU minutes against the distance of samples from training images, on logarithmic axes."""
    (floor,) = values("stages", {"cell": "encodings", "recipe": "multistage_nce/mnist_normal_base"}, FLOOR)
    for label, (colour, study, wanted) in POINTS.items():
        figure = f"{DISTANCE}/revised" if study == "revision" else DISTANCE
        x, own = mean(values(study, wanted, "cpu_minutes")), values(study, wanted, figure)
        bars(axes, x, own, color=colour)
        place = NUDGES.get(label, (6, 3))
        axes.annotate(label, (x, mean(own)), xytext=place, textcoords="offset points", fontsize=8)
    axes.axhline(floor, color="0.5", ls=":")
    axes.annotate("real against real", (4.2, floor), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlim=(4, 75), xlabel="CPU minutes of training, one thread")
    axes.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    axes.set_yticks([2, 10, 50, 100, 500], ["2", "10", "50", "100", "500"])
    axes.minorticks_off()
    axes.set_ylabel("Fréchet distance of samples")


def anomaly(axes: Any) -> None:
    """Draw the AUPRC of four scores by the held-out digit."""
    rows = [
        ("mixture as base, -log p(z)", "C3", "base", {"cell": "held_out"}, "code"),
        (
            "LatentMLE, combined",
            "C0",
            "anomaly",
            {"cell": "held_out_conv", "method": "LatentMLE"},
            "combined",
        ),
        (
            "VAE, reconstruction",
            "0.5",
            "anomaly",
            {"cell": "held_out_conv", "method": "VAE"},
            "reconstruction",
        ),
    ]
    for shift, (label, colour, study, wanted, score) in enumerate(rows):
        for place, digit in enumerate(DIGITS):
            own = values(study, wanted | {"held_out_label": digit}, f"auprc/{score}")
            bars(axes, place + 0.12 * (shift - 1), own, color=colour, label=label if not place else None)
    guess = [
        mean(values("anomaly", {"cell": "equal_time", "held_out_label": d}, "base_rate")) for d in DIGITS
    ]
    axes.plot(range(len(DIGITS)), guess, "_", ms=22, color="0.5", label="guessing")
    axes.set(xlabel="held-out digit", ylabel="AUPRC", ylim=(0, 1))
    axes.set_xticks(range(len(DIGITS)), DIGITS)
    axes.legend(fontsize=8, ncols=2, loc="lower right")


def inference(axes: Any) -> None:
    """Draw the distance by 60 fresh steps over ten minutes: median and range of three seeds."""
    rows = {
        "published chains": ("0.5", {"row": "short_run"}),
        "encoder, Langevin steps, pool": ("C1", {"row": "taught+pool"}),
        "encoder, exact steps, pool": ("C2", {"row": "taught_mala+pool"}),
        "variational encoder, pool": ("C0", {"row": "variational+pool"}),
    }
    looks = [0.5, 1, 2, 3, 5, 7]
    for label, (colour, wanted) in rows.items():
        chosen = wanted | {"cell": "timed", "minutes": 10.0}
        own = [values("inference", chosen, f"distance@{look:g}") for look in looks]
        own.append(values("inference", chosen, "distance_60"))
        axes.plot([*looks, 10], [median(seeds) for seeds in own], color=colour, label=label)
        axes.fill_between([*looks, 10], list(map(min, own)), list(map(max, own)), color=colour, alpha=0.15)
    axes.set(yscale="log", xlabel="CPU minutes", ylabel="distance of 60 fresh steps")
    axes.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axes.minorticks_off()
    axes.legend(fontsize=8)


def layers(axes: Any) -> None:
    """Draw the accuracy of the top layer, one point per seed."""
    rows = {
        "our ladder,\nN(0, I)": {"cell": "recipes", "recipe": "joint_hierarchical/mnist_vae"},
        "our ladder,\nenergy": {"cell": "recipes", "recipe": "joint_hierarchical/mnist"},
        "paper's networks,\nN(0, I)": {"cell": "published_networks", "prior": "normal"},
        "paper's networks,\nenergy": {"cell": "published_networks", "prior": "free"},
    }
    for place, wanted in enumerate(rows.values()):
        own = [100 * value for value in values("layers", wanted, "accuracy/layer_3")]
        axes.plot([place] * len(own), own, "o", color="0.5" if place % 2 == 0 else "C2")
    for printed, words in ((52.1, "paper, no energy"), (67.6, "paper, energy")):
        axes.axhline(printed, color="0.5", ls=":")
        axes.annotate(words, (-0.4, printed), xytext=(0, 2), textcoords="offset points", fontsize=8)
    axes.set(ylabel="accuracy of the top layer, %", xlim=(-0.5, len(rows) - 0.5))
    axes.set_xticks(range(len(rows)), rows, fontsize=8)


def verses(axes: Any) -> None:
    """Draw the gain of a fitted prior over N(0, I) against the worth of the latent to the generator."""
    for prior, colour, label in (("energies", "C0", "energy"), ("mixtures", "C3", "mixture of 10 Gaussians")):
        for place, pull in enumerate((1.0, 0.5, 0.3, 0.1)):
            x = mean(values("verses", {"cell": "pulls", "pull": pull}, "latent_nats"))
            own = values("verses", {"cell": prior, "pull": pull}, "gain")
            bars(axes, x, own, color=colour, label=label if not place else None)
    axes.axhline(0, color="0.5", ls=":")
    axes.set(xlabel="worth of z to the generator, nats per verse", ylabel="gain over N(0, I), nats")
    axes.legend(fontsize=8)


def ratios(axes: Any) -> None:
    """Draw estimates of known divergences of a sharpened Gaussian: median and range of five seeds."""
    kinds = {"single": ("one classifier", "0.5"), "telescoping, mixed": ("telescoping", "C1")}
    for figure, (label, colour) in (kinds | {"sequential": ("in sequence", "C0")}).items():
        truths = [1, 5, 10, 20, 40]
        own = [values("ratios", {"family": "sharpening", "kl": kl}, figure) for kl in truths]
        axes.plot(truths, [median(seeds) for seeds in own], "o-", color=colour, label=label)
    axes.plot([0, 40], [0, 40], color="0.5", ls=":", label="truth")
    axes.set(xlabel="divergence, nats", ylabel="estimate, nats")
    axes.legend(fontsize=8)


FIGURES: dict[str, Callable[[Any], None]] = {
    "toolkit": toolkit,
    "anomaly": anomaly,
    "inference": inference,
    "layers": layers,
    "verses": verses,
    "ratios": ratios,
}


def main() -> None:
    mpl.rcParams |= {"svg.hashsalt": "lebm", "svg.fonttype": "none", "axes.spines.top": False}
    mpl.rcParams |= {"axes.spines.right": False, "figure.dpi": 100, "legend.frameon": False}
    for name, draw in FIGURES.items():
        size = (7.2, 4.6) if name == "toolkit" else (6.0, 3.2)
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        path = ROOT / "docs" / "images" / f"results_{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
