"""Cells of studies/labels.yaml: classes of MNIST codes from few labels, for scripts/measures.py.

The codes come from a packaged model, trained on all images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from base_priors import WITHOUT, Figures
from lightning.pytorch import Trainer, seed_everything
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import cross_entropy

import lebm
from lebm.data import ArrayData, open_images, to_unit_range
from lebm.estimators import AdamGroups, LatentMLE
from lebm.inference import Frozen
from lebm.models import (
    ClassEnergy,
    EnergyPrior,
    GaussianLikelihood,
    GaussianMixture,
    StandardNormal,
    VectorUnits,
)
from lebm.samplers import MALA, IndependenceMetropolis, PersistentChains, Sampler

MODEL, STEPS, BATCH, CLASSES, ROWS = "pretrained/multistage_nce-mnist_conv", 1_000, 200, 10, 10_000


class FewLabels(LatentMLE):
    """`LatentMLE` with a batch of labelled rows in every step, as in Pang and Wu (2021)."""

    def label_loss(self, z: Tensor, batch: Any) -> Tensor:
        at = torch.randint(len(self.few[0]), (min(BATCH, len(self.few[0])),))
        loss = cross_entropy(self.prior.tilt.logits(self.few[0][at]), self.few[1][at])
        return self.prior.tilt.label_weight * loss


@torch.no_grad()
def codes(folder: Path, data: str) -> dict[str, Tensor]:
    """Return the encoder means of all images in units of their deviation, computed once per folder."""
    path = folder / "codes.pt"
    if not path.exists():
        model, found = lebm.load(MODEL).eval(), {}
        for split in ("train", "test"):
            rows = open_images(data, split)
            parts = torch.from_numpy(np.array(rows.images)).split(500)
            found[split] = torch.cat([model.encoder(to_unit_range(part)).mean for part in parts])
            found[f"{split}_label"] = torch.from_numpy(np.array(rows.labels)).long()
        mean, std = found["train"].mean(0), found["train"].std(0)
        torch.save({k: v if v.dim() == 1 else (v - mean) / std for k, v in found.items()}, path)
    return torch.load(path)


def few_labels(run: Path, settings: dict[str, Any], data: str | None) -> Figures:
    """Return the test accuracy of classifiers from a number of labels, equal for all classes."""
    rows, seed, count = codes(run.parent, str(data)), settings["seed_everything"], settings["labels"]
    seed_everything(seed, verbose=False)
    noise, z, y = torch.Generator().manual_seed(seed), rows["train"], rows["train_label"]
    order = torch.randperm(len(y), generator=noise)
    own = torch.cat([order[y[order] == digit][: count // CLASSES] for digit in range(CLASSES)])
    few = z[own], y[own]

    def accuracy(predicted: Any) -> list[float | None]:
        return [float((torch.as_tensor(predicted) == rows["test_label"]).double().mean()), None, None]

    test = rows["test"]
    found = {
        "logistic": accuracy(LogisticRegression(max_iter=1000).fit(*few).predict(test)),
        "neighbour": accuracy(KNeighborsClassifier(1).fit(*few).predict(test)),
        "network": accuracy(labels_alone(few).logits(test).argmax(1)),
    }
    dim = z.shape[1]
    mixture = GaussianMixture(dim, 50)
    mixture.fit(z[order[:ROWS]], noise)
    with torch.no_grad():
        parts, given = (mixture.joint(at).softmax(dim=1) for at in (test, few[0]))
        classes = given.T @ torch.eye(CLASSES)[few[1]] + 1e-3 / CLASSES
        found["components"] = accuracy((parts @ (classes / classes.sum(1, keepdim=True))).argmax(1))
    samplers = {"mixture": IndependenceMetropolis(5), "normal": PersistentChains(MALA(5, 0.3), slots=20)}
    for name, base in {"mixture": mixture, "normal": StandardNormal(dim)}.items():
        energy = joint(EnergyPrior(ClassEnergy(dim, CLASSES), base), samplers[name], z, few, seed)
        with torch.no_grad():
            found[f"energy on {name}"] = accuracy(energy.logits(test).argmax(1))
    return found


def labels_alone(few: tuple[Tensor, Tensor]) -> ClassEnergy:
    """Train the network of the energy by the cross-entropy of the labelled codes."""
    energy = ClassEnergy(few[0].shape[1], CLASSES)
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-3)
    for _ in range(STEPS):
        at = torch.randint(len(few[0]), (min(BATCH, len(few[0])),))
        loss = cross_entropy(energy.logits(few[0][at]), few[1][at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return energy


def joint(
    prior: EnergyPrior, sampler: Sampler, z: Tensor, few: tuple[Tensor, Tensor], seed: int
) -> ClassEnergy:
    """Train an energy of codes and classes on all codes and the few labels."""
    model = FewLabels(
        GaussianLikelihood(VectorUnits(z.shape[1]), sigma=0.1),
        prior,
        prior_sampler=sampler,
        optimizer=AdamGroups({"energy": 1e-3}, max_grad_norm={"energy": 1.0}),
        inference=Frozen(),
        seed=seed,
    )
    model.few = few
    data = ArrayData.of({"train": z}, batch_size=BATCH, seed=seed)
    Trainer(max_steps=STEPS, **WITHOUT).fit(model, data)
    return prior.tilt.eval()
