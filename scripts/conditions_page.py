"""The figures and the picture of docs/conditions.md: class draws and completions of the MNIST models.

    python scripts/conditions_page.py --data ylecun/mnist [--images 200] [pretrained/NAME ...]

All classes choose among the same 4,000 draws of the prior. The judge is the digit classifier of images that
ships with lebm.metrics.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import lebm
from lebm.conditions import ClassCondition, Observed, draw_given
from lebm.evaluation.reopen import reopen
from lebm.metrics import DigitFeatures
from lebm.metrics.frechet import neighbour_rows
from lebm.models import LatentClassifier
from lebm.plots import image_grid, write_png

MODELS = ["pretrained/multistage_nce-mnist_conv", "pretrained/latent_mle-mnist"]
PICTURE = Path("docs/images/conditions.png")
JUDGE = DigitFeatures()
SEEN = torch.arange(28)[:, None].expand(1, 28, 28) < 14


def judged(x: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``(N, 64)`` and digits ``(N,)`` of images."""
    parts = [JUDGE.with_logits(part) for part in x.split(500)]
    features = torch.cat([found for found, _ in parts])
    return features, torch.cat([logits for _, logits in parts]).argmax(dim=1)  # type: ignore[misc]


def measure(name: str, data: str, images: int, sharpness: list[float]) -> Tensor:
    """Print the figures of a model, and return the rows of the picture."""
    model, noise = lebm.load(name), torch.Generator().manual_seed(0)
    source = reopen(Path(name), data, model)
    train, test = source.rows("train"), source.rows("test")
    began = time.perf_counter()
    with torch.no_grad():
        z = torch.cat([model.encode(x, generator=noise) for _, x in train.batches(1000)])
    classifier = LatentClassifier.fit(z, torch.tensor(train.columns["label"]))
    print(f"\n## {name}\n\nclassifier fitted in {time.perf_counter() - began:.0f} s", flush=True)
    prior = model.sample_latent(4000, generator=noise)
    (free, free_digits), labels = judged(model.decode(prior)), torch.tensor(test.columns["label"])
    real, density = judged(test.all())[0], model.latent_prior.log_density

    print("| sharpness | agrees | lowest class | recall less unconditional, by class |\n|---|---|---|---|")
    for weight in sharpness:
        agrees, gains = [], []
        for digit in range(10):
            given = weight * ClassCondition(classifier, digit)
            features, digits = judged(model.decode(draw_given(density, given, prior, 1000, noise).z))
            agrees.append(float((digits == digit).double().mean()))
            own = free[free_digits == digit]
            target = real[labels == digit][:800]
            recall = [
                neighbour_rows(target, some[: len(own)])["recall"].mean()
                for some in (features[digits == digit], own)
            ]
            gains.append(float(recall[0] - recall[1]))
        shown = " ".join(f"{gain:+.2f}" for gain in gains)
        print(f"| {weight:g} | {sum(agrees) / 10:.3f} | {min(agrees):.3f} | {shown} |", flush=True)

    rows = test.spread(images, 0)
    x, truth = rows.all(), torch.tensor(rows.columns["label"])
    print("\n| the true digit | share |\n|---|---|")
    for fill in (-1.0, 0.0):
        masked = model.reconstruct(torch.where(SEEN, x, fill), generator=noise)
        hit = (judged(masked)[1] == truth).double().mean()
        print(f"| in the reconstruction of the masked image, filled with {fill:g} | {hit:.3f} |")
    for sigma in (1.0, None):
        hits, each, error = 0, 0.0, 0.0
        for image, digit in zip(x, truth, strict=True):
            given = Observed(image, SEEN, sigma, likelihood=model.likelihood)
            start = prior[torch.randperm(len(prior), generator=noise)[:256]]
            made = model.decode(draw_given(density, given, start, 8, noise).z)
            right = judged(made)[1] == digit
            hits, each = hits + bool(right.any()), each + float(right.double().mean())
            error += float((made.mean(dim=0) - image)[:, 14:].square().mean())
        said = f"sigma {sigma:g}" if sigma else f"the model's own sigma, {model.likelihood.sigma:g}"
        print(
            f"| among 8 completions, {said} | {hits / images:.3f} (each {each / images:.3f}, squared error of"
            f" their mean at hidden pixels {error / images:.3f}) |",
            flush=True,
        )

    pictures = [
        model.decode(draw_given(density, 2 * ClassCondition(classifier, digits), prior, 10, noise).z)
        for digits in ([0], [1], [2], [3], [4], [5], [6], [7], [8], [9], [5, 8])
    ]
    image = x[int((truth == 5).nonzero()[0])]
    given = Observed(image, SEEN, 1.0, likelihood=model.likelihood)
    made = model.decode(draw_given(density, given, prior, 64, noise).z)
    ends = torch.stack([made.mean(dim=0), 2 * made.std(dim=0) - 1])
    return torch.cat([*pictures, torch.where(SEEN, image, 0.0)[None], made[:: 64 // 7][:7], ends])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--data", default="ylecun/mnist")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--sharpness", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    chosen = parser.parse_args()
    shown = [measure(name, chosen.data, chosen.images, chosen.sharpness) for name in chosen.models]
    write_png(PICTURE, image_grid(shown[0], 10))


if __name__ == "__main__":
    main()
