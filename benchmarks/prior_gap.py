"""What a learned prior has to learn: the divergence of a run's encodings of training data from N(0, I).

    python -m benchmarks.prior_gap runs/latent_mle-kjv-gaussian runs/latent_mle-kjv
    python -m benchmarks.prior_gap RUN --rows 10000 --steps 100

Encodings are one draw a row of the run's posterior chain, or of its inference model. A classifier tells them
from as many draws of N(0, I) (``lebm.density_ratio.logistic``), and the mean of its log-ratio over held-out
encodings estimates KL(encodings, N(0, I)). With the generator held fixed and exact posterior draws, it is
what the likelihood gains at least, a row, if the density of the encodings replaces N(0, I) as the prior (one
step of EM). A classifier that is nearly always right (accuracy near 1) gives a number that is too small. The
chain's own bias is part of it: unadjusted steps of size s widen N(0, I) to a variance of 1 / (1 - s^2 / 4).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import lebm
from lebm.density_ratio import logistic
from lebm.density_ratio.classifiers import Training
from lebm.evaluation.reopen import reopen
from lebm.models import MLPEnergy


def gap(run: Path, rows: int, steps: int | None, seed: int) -> dict:
    model = lebm.load(run).eval()
    data = reopen(run, model=model).rows("train", rows)
    source = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    encoded = torch.cat([model.encode(x, steps=steps, generator=source) for _, x in data.batches(500)])
    encoded = encoded[torch.randperm(len(encoded), generator=source)]
    energy = MLPEnergy(model.latent_dim, [200, 200], output_bias=True)
    normal = torch.randn(encoded.shape, generator=source)
    quality = logistic(encoded, normal, energy, Training(), source).quality
    found = {"run": str(run), "rows": len(encoded), "steps": steps, "deviation": encoded.std().item()}
    found |= {"kl": quality.kl, "low": quality.kl_low, "high": quality.kl_high}
    return found | {"accuracy": quality.accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--steps", type=int, help="of the posterior chain; the run's own if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for run in options.runs:
        print(json.dumps(gap(run, options.rows, options.steps, options.seed)), flush=True)


if __name__ == "__main__":
    main()
