"""One training, several protocols: how far the protocol alone moves an AUPRC on MNIST.

    python scripts/anomaly_table.py run FOLDER --only LatentMLE --seed 2 --every-epoch    # and VAE
    python scripts/anomaly_protocols.py run runs/anomaly/{LatentMLE,VAE}-2/held_out_label-*
    python scripts/anomaly_protocols.py write    # the table only

The protocols rank other images by the same scores, or take the scores of other epochs of the same training.
It writes results/anomaly/protocols.json and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from anomaly_table import protocols
from results_page import arguments, keep, publish, stored
from sklearn.metrics import average_precision_score
from torch import Tensor

import lebm
from lebm.evaluation.data import RunImages, batches, some_rows
from lebm.evaluation.reopen import reopen
from lebm.evaluation.scores import combined, score_pass

SEED, NORMAL = 0, 5000
LEAKED = 0.8  # share of normal test images that a loader has trained on if it shuffles anew per call
BASE_RATES = (0.1, 0.5)
LAST = 10
SCORES = ("reconstruction", "combined")


def scored(path: Path, images: RunImages) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The scores of the test images, and of 5,000 training images, by one checkpoint."""
    model = lebm.load(path)
    assert images.train is not None
    trained = some_rows(images.train, SEED, 2 * NORMAL)
    order = np.random.default_rng(SEED).permutation(len(trained))
    seen = score_pass(model, batches(trained, 500), "training images")
    test = score_pass(model, batches(images.test, 500), "test images")
    compared, rest = (
        {name: values[rows] for name, values in seen.items()} for rows in (order[:NORMAL], order[NORMAL:])
    )
    for scores in (test, rest):
        scores["combined"] = combined(scores, compared)
    return test, rest


def measure(run: Path) -> dict:
    """AUPRC of a run under each protocol, for each score."""
    images = RunImages.of(reopen(run))
    epochs = [scored(path, images) for path in sorted((run / "checkpoints").glob("epoch=*.ckpt"))]
    if len(epochs) < LAST:
        raise SystemExit(f"{run}: {len(epochs)} epochs were kept; train it with --every-epoch")
    anomaly = epochs[-1][0]["label"] == images.held_out_label
    rate, found = float(anomaly.double().mean()), {}
    for score in SCORES:
        groups = [(test[score][anomaly], test[score][~anomaly], seen[score]) for test, seen in epochs]
        honest, leaked = ([precision(*own, rate, share) for own in groups] for share in (0.0, LEAKED))
        found[score] = {
            "honest": honest[-1],
            f"mean of the last {LAST} epochs": float(np.mean(honest[-LAST:])),
            "best epoch": max(honest),
            "leaked": leaked[-1],
            "leaked, best epoch": max(leaked),
        }
        for other in BASE_RATES:
            found[score][f"base rate {other:g}"] = precision(*groups[-1], other, 0.0)
    name = run.parent.name.rpartition("-")[0]
    return {"model": name, "held_out_label": images.held_out_label, "epochs": len(epochs), "auprc": found}


def precision(anomalies: Tensor, unseen: Tensor, seen: Tensor, rate: float, leaked: float) -> float:
    """Average precision with a share ``rate`` of anomalies, and a share ``leaked`` of normal images that
    training saw.
    """
    groups = anomalies, unseen, seen
    shares = rate, (1 - rate) * (1 - leaked), (1 - rate) * leaked
    weights = [
        torch.full((len(group),), share / len(group)) for group, share in zip(groups, shares, strict=True)
    ]
    labels = [torch.full((len(group),), group is anomalies) for group in groups]
    return float(
        average_precision_score(torch.cat(labels), torch.cat(groups), sample_weight=torch.cat(weights))
    )


def main() -> None:
    parser = arguments(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run").add_argument("runs", nargs="+", type=Path)
    verbs.add_parser("write")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        old = stored("anomaly/protocols", [])
        known = {(own["model"], own["held_out_label"]): own for own in [*old, *map(measure, chosen.runs)]}
        keep("anomaly/protocols", [known[key] for key in sorted(known)])
    publish({"anomaly_protocols": protocols})


if __name__ == "__main__":
    main()
