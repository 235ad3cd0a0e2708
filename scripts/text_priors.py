"""Verses by an encoder: how strongly the prior pulls, and which prior the same generator gets afterwards.

    python scripts/text_priors.py run FOLDER --pulls 1,0.5,0.3 --seed 0    # finished runs are not repeated
    python scripts/text_priors.py write

For each pull a model with N(0, I) is trained for 4 epochs. Then an energy learns for 3 epochs on its
encodings; generator and encoder stay as they are. A mixture of Gaussians is fitted to them too. FOLDER is
that of the verses (docs/text.md). One thread: set OMP_NUM_THREADS=1. A pull costs 20 CPU minutes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from results_page import ROOT, half_width, keep, opened, publish, run_or_write, stored
from write_text_results import BLOCKS

NAME, VERSES, DRAWS = "text_priors", 100, 100
FITTED, COMPONENTS = 10_000, 10
RUNS = ROOT / "runs" / "text_priors"


def words(pull: str, seed: int, folder: str, backbone: Path | None) -> list[str]:
    """What follows ``lebm fit``: with N(0, I), or for an energy on the encodings of a finished run."""
    model = "--model.init_args"
    shared = ["-c", "latent_mle/kjv_published", "-c", "inference/variational"]
    if backbone is not None:
        shared += ["-c", "prior/persistent"]
    shared += ["--data.init_args.path", folder, "--trainer.enable_progress_bar", "false"]
    shared += ["--seed_everything", str(seed), f"{model}.likelihood.init_args.word_dropout", "0.0"]
    if backbone is not None:
        frozen = f"{{class_path: Frozen, init_args: {{backbone: {backbone}}}}}"
        own = ["--trainer.max_epochs", "3", f"{model}.inference", frozen]
        rates = ["{energy: 0.001}", "{energy: 1.0}"]
    else:
        own = ["--trainer.max_epochs", "4", f"{model}.inference.init_args.prior_pull", pull]
        own += [f"{model}.prior", "StandardNormal", f"{model}.prior.init_args.latent_dim", "32"]
        rates = ["{generator: 0.002, encoder: 0.001}", "{generator: 5.0}"]
    optimizer = f"{model}.optimizer.init_args"
    return [*shared, *own, f"{optimizer}.lr", rates[0], f"{optimizer}.max_grad_norm", rates[1]]


def fit(run: Path, flags: list[str]) -> list[str]:
    """Train, or resume; a finished run is left alone."""
    command = [sys.executable, "-m", "lebm", "fit", *flags, "--run_dir", str(run)]
    summary = run / "summary.json"
    if not summary.exists() or json.loads(summary.read_text())["status"] != "finished":
        resume = ["--resume"] if (run / "checkpoints").exists() else []
        subprocess.run([*command, *resume], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    return ["lebm", "fit", *flags, "--run_dir", str(run)]


def trained(run: Path, data: Any) -> Any:
    """The model of a run, which reads the verses of ``data``."""
    from lebm import load

    model = load(run).eval()
    model.sentences.adopt(data.vocabulary)  # type: ignore[union-attr]
    return model


def measured(run: Path, data: Any) -> dict[str, float]:
    """Bounds on the likelihood from the encoder's Gaussians, quality of samples, and the divergence of q."""
    import torch

    from lebm.evaluation.sentences import LikelihoodBounds, SampleQuality
    from lebm.models import DiagonalGaussian

    model = trained(run, data)
    bounds = LikelihoodBounds(n=VERSES, chains=DRAWS, start="posterior")
    quality, divergences = SampleQuality(n=3000, steps=400), []
    unit = DiagonalGaussian(torch.zeros(()), torch.zeros(()))
    with torch.no_grad():
        bounds.begin(model)
        quality.begin(model)
        for number, batch in enumerate(data.test_dataloader()):
            out = model.test_step(batch, number)
            bounds.update(model, out["x"], batch["index"])
            quality.update(model, out["x"], out["z"], batch["index"])
            q = model.inference.encoder(out["x"])  # type: ignore[operator, union-attr]
            divergences.append(q.divergences(unit).sum(1))
    values = {**bounds.compute(), **quality.compute(model, data.train)}
    values["divergence"] = float(torch.cat(divergences).mean())
    return values | gain_of_the_energy(model, data, values["log_z"])


def gain_of_the_energy(model: Any, data: Any, log_z: float) -> dict[str, float]:
    """Mean ``log p(z) - log N(z; 0, I)`` of encodings of test verses, with 95 % ends; empty for N(0, I)."""
    import torch

    if model.prior.is_exact:
        return {}
    with torch.no_grad():
        batches = enumerate(data.test_dataloader())
        gains = torch.cat([-model.prior.energy(model.test_step(batch, i)["z"]) for i, batch in batches])
    return {"gain": float(gains.mean()) - log_z, "gain_half": half_width(gains)}


def mixture(run: Path, data: Any) -> dict[str, float]:
    """A mixture of Gaussians on encodings of training verses: its samples and its gain, as of an energy."""
    import torch
    from sklearn.mixture import GaussianMixture

    from lebm.evaluation.sentences import SampleQuality
    from lebm.models import StandardNormal
    from lebm.samplers import Noise

    model = trained(run, data)
    with torch.no_grad():
        parts = torch.arange(FITTED).split(500)
        tokens = (data.train.tokens(part.numpy()) for part in parts)
        noise = (Noise.samples(0, "mixture", index=part) for part in parts)
        z = torch.cat([model.encode(x, generator=source) for x, source in zip(tokens, noise, strict=True)])
    begun = time.process_time()
    fitted = GaussianMixture(COMPONENTS, random_state=0, max_iter=200).fit(z.double().numpy())
    spent, quality = time.process_time() - begun, SampleQuality(n=3000, steps=400)
    latents = torch.from_numpy(fitted.sample(quality.n)[0]).float()
    model.sample = lambda n, generator: model.likelihood.draw(latents[:n], generator)  # type: ignore[method-assign]
    gains = []
    with torch.no_grad():
        quality.begin(model)
        for number, batch in enumerate(data.test_dataloader()):
            out = model.test_step(batch, number)
            quality.update(model, out["x"], out["z"], batch["index"])
            unit = StandardNormal(model.latent_dim).log_density(out["z"])
            gains.append(torch.from_numpy(fitted.score_samples(out["z"].double().numpy())) - unit)
    gain = torch.cat(gains)
    values = quality.compute(model, data.train)
    chosen = {name: values[name] for name in ("forward_perplexity", "reverse_perplexity")}
    return chosen | {"gain": float(gain.mean()), "gain_half": half_width(gain), "cpu_time_seconds": spent}


def real_perplexity(data: Any) -> float:
    """The forward perplexity of as many other training verses as there are samples."""
    import torch

    from lebm.metrics.text_likelihood import Budget, language_model_perplexity

    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0)).numpy()
    learned, judged = data.train.tokens(rows[:3000]), data.train.tokens(rows[3000:6000])
    return language_model_perplexity(
        learned, judged, len(data.vocabulary), Budget(steps=400, hidden=128, seed=0)
    )


def run(chosen: argparse.Namespace) -> None:
    _, data = opened("latent_mle/kjv_published", folder=chosen.folder)
    done = stored(NAME, {"rows": {}})
    done |= {"verses": VERSES, "draws": DRAWS, "real_perplexity": real_perplexity(data)}
    for pull in chosen.pulls.split(","):
        normal = RUNS / f"pull-{pull}-seed-{chosen.seed}"
        energy = normal.with_name(f"{normal.name}-energy")
        for prior, folder in (("normal", normal), ("energy", energy), ("mixture", normal)):
            name = f"{pull}-{chosen.seed}-{prior}"
            backbone = normal if prior == "energy" else None
            command = fit(folder, words(pull, chosen.seed, chosen.folder, backbone))
            if name in done["rows"]:
                continue
            summary = json.loads((folder / "summary.json").read_text())
            values = mixture(folder, data) if prior == "mixture" else measured(folder, data)
            if "cpu_time_seconds" in values:  # the fit of the mixture alone
                summary["cpu_time_seconds"] = values.pop("cpu_time_seconds")
            done["rows"][name] = {
                "pull": pull,
                "seed": chosen.seed,
                "prior": prior,
                "command": " ".join(command).replace(str(ROOT) + "/", ""),
                **{
                    key: summary[key]
                    for key in ("steps", "cpu_time_seconds", "versions", "hardware", "started")
                },
                "values": values,
            }
            keep(NAME, done)


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of the verses")
    runner.add_argument("--pulls", default="1,0.5,0.3")
    runner.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.verb == "run":
        run(chosen)
    publish(BLOCKS)


if __name__ == "__main__":
    main()
