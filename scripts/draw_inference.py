"""Draw the picture of docs/inference.md: the posterior of one image under each kind of inference, beside the
truth by quadrature. `python scripts/draw_inference.py`, two minutes on one thread.

The latent has two coordinates. Generator and prior are trained once and then fixed, so that the kinds differ
in nothing else; the encoders then learn on the same images for the same number of steps."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lebm.data import ImageData
from lebm.estimators import AdamGroups, LatentMLE
from lebm.inference import Inference, Remembered, ShortRun, Taught, Variational
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import Langevin, PersistentChains

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
STEPS, ROWS, DRAWS, SPAN = 1_500, 100, 400, 5.0
STEPS_OF_CHAIN = {"ShortRun": 20, "Remembered": 5, "Taught": 5}


def model(inference: Inference) -> LatentMLE:
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(MLPGenerator(2, [1, 28, 28], hidden=[256, 256]), sigma=1.0)
    rates = {"generator": 1e-3, "energy": 3e-4} | ({"encoder": 1e-3} if inference.needs_encoder else {})
    return LatentMLE(
        likelihood,
        EnergyPrior(MLPEnergy(2, hidden=[100, 100])),
        PersistentChains(Langevin(10, 0.4), slots=20),
        Langevin(STEPS_OF_CHAIN.get(type(inference).__name__, 0), 0.1) if inference.runs_chain else None,
        AdamGroups(rates),
        inference,
    )


def trained(made: LatentMLE, x: Tensor, names: set[str], steps: int) -> LatentMLE:
    """Train some of the networks on batches in a fixed random order."""
    networks = {name: part for name, part in made.networks().items() if name in names}
    adam = torch.optim.Adam([p for part in networks.values() for p in part.parameters()], lr=1e-3)
    order = torch.Generator().manual_seed(1)
    for step in range(steps):
        index = torch.randint(len(x), (ROWS,), generator=order)
        loss = made.loss({"x": x[index], "index": index}, step)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return made


def draws(made: LatentMLE, image: Tensor) -> Tensor:
    """Latents of the image as training infers them. The memory of a row begins at the reference."""
    batch = {"x": image.expand(DRAWS, *image.shape), "index": torch.arange(DRAWS)}
    visits = 60 if isinstance(made.inference, Remembered) else 1
    if isinstance(made.inference, Remembered):
        made.inference = Remembered()
    for visit in range(visits):
        z = made.infer(made.observations(batch), batch, visit).z.detach()
    return z


def main() -> None:
    data = ImageData("embedded:mnist", image_size=28, channels=1, batch_size=ROWS, eval_batch_size=500)
    data.setup("fit")
    data.setup("test")
    x = data.train.__getitems__(list(range(len(data.train))))["x"].float() / 127.5 - 1
    image = data.test.__getitems__([12])["x"].float()[0] / 127.5 - 1
    base = trained(model(Variational()), x, {"generator", "energy", "encoder"}, 3 * STEPS).eval()
    line = torch.linspace(-SPAN, SPAN, 121)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        truth = base.posterior(image.expand(len(grid), 1, 28, 28))(grid)
    density = (truth - truth.max()).exp().reshape(121, 121).T
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.1))
    for axis, kind in zip(axes, (ShortRun, Remembered, Taught, Variational), strict=True):
        made = model(kind())
        made.likelihood.load_state_dict(base.likelihood.state_dict())
        made.prior.load_state_dict(base.prior.state_dict())
        if made.inference.needs_encoder:
            trained(made, x, {"encoder"}, STEPS)
        z = draws(made, image)
        axis.contour(line, line, density, levels=[0.02, 0.1, 0.3, 0.6, 0.9], colors="0.5", linewidths=0.8)
        axis.scatter(*z.T, s=3, color="tab:red", alpha=0.5, linewidths=0)
        steps = STEPS_OF_CHAIN.get(kind.__name__)
        title = {ShortRun: f"{steps} steps from N(0, I)", Remembered: f"{steps} steps, 60 visits"}
        words = title.get(kind, f"encoder + {steps} steps" if steps else "encoder alone")
        axis.set_title(f"{kind.__name__}: {words}", fontsize=9)
        axis.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), xticks=[], yticks=[], aspect="equal")
    figure.tight_layout()
    figure.savefig(IMAGES / "inference_posteriors.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
