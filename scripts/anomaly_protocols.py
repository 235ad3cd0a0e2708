"""One model, several protocols: how far the protocol alone moves an AUPRC on MNIST.

    python scripts/anomaly_protocols.py run runs/anomaly/LatentMLE-0/held_out_label-*
    python scripts/anomaly_protocols.py write    # the table only

Every protocol ranks by the same scores of the same checkpoint; only the images that are ranked differ. It
writes results/anomaly/protocols.json and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from anomaly_table import protocols
from results_page import arguments, keep, publish, stored
from sklearn.metrics import average_precision_score
from torch import Tensor

import lebm
from lebm.config.run_data import stored_settings
from lebm.evaluation.data import RunImages, batches, some_rows
from lebm.evaluation.scores import combined, score_pass

SEED, NORMAL = 0, 5000
LEAKED = 0.8  # share of normal test images that a loader has trained on if it shuffles anew per call
BASE_RATES = (0.1, 0.5)
SCORES = ("reconstruction", "combined")


def measure(run: Path) -> dict:
    """AUPRC of a run under each protocol, for each score."""
    model = lebm.load(run)
    images = RunImages.open(stored_settings(run), None, (1, 28, 28))
    assert images.train is not None
    trained = some_rows(images.train, SEED, 2 * NORMAL)
    order = np.random.default_rng(SEED).permutation(len(trained))
    seen = score_pass(model, batches(trained, 500), "training images")
    test = score_pass(model, batches(images.test, 500), "test images")
    halves = [
        {name: values[rows] for name, values in seen.items()} for rows in (order[:NORMAL], order[NORMAL:])
    ]
    for scores in (test, halves[1]):  # the first half is what `combined` compares with
        scores["combined"] = combined(scores, halves[0])
    anomaly = test["label"] == images.held_out_label
    found = {}
    for score in SCORES:
        groups = test[score][anomaly], test[score][~anomaly], halves[1][score]
        rate = float(anomaly.double().mean())
        found[score] = {"honest": precision(*groups, rate, 0.0), "leaked": precision(*groups, rate, LEAKED)}
        for other in BASE_RATES:
            found[score][f"base rate {other:g}"] = precision(*groups, other, 0.0)
    return {"held_out_label": images.held_out_label, "base_rate": rate, "auprc": found}


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
        known = {entry["held_out_label"]: entry for entry in [*old, *map(measure, chosen.runs)]}
        keep("anomaly/protocols", [known[label] for label in sorted(known)])
    publish({"anomaly_protocols": protocols})


if __name__ == "__main__":
    main()
