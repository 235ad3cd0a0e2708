"""MultiStageNCE in plain PyTorch Lightning: a prior on the plane as a product of density ratios.

The generator is the identity, so the prior is a density of the points themselves. Runs in a few seconds on a
CPU; the recipe multistage_nce/toy2d is the longer version.
"""

from __future__ import annotations

from lightning.pytorch import Trainer, seed_everything

from lebm.data import PlaneData, plane_samples
from lebm.estimators import AdamGroups, FixedStages, MultiStageNCE
from lebm.metrics import maximum_mean_discrepancy
from lebm.models import GaussianLikelihood, IdentityGenerator, MLPEnergy, RatioPrior, RatioProduct
from lebm.samplers import MALA, AnnealedImportanceSampling, Langevin, PersistentChains

STAGES, STEPS = 2, 50


def build() -> MultiStageNCE:
    """Return a model of at most STAGES classifiers of encodings against draws of the prior so far."""
    classifier = MLPEnergy(latent_dim=2, hidden=[64, 64], output_bias=True)
    return MultiStageNCE(
        likelihood=GaussianLikelihood(IdentityGenerator(latent_dim=2), sigma=0.1),
        prior=RatioPrior(RatioProduct(classifier, max_stages=STAGES)),
        prior_sampler=PersistentChains(Langevin(steps=6, step_size=0.2), slots=4, restart_rate=0.02),
        posterior_sampler=Langevin(steps=20, step_size=0.1),
        optimizer=AdamGroups(lr={"energy": 5e-3}, betas=(0.9, 0.99)),
        stages=FixedStages(STEPS),
        annealing=AnnealedImportanceSampling(levels=20, kernel=MALA(steps=1, step_size=0.3)),
        annealing_chains=128,
        update_generator_in_stage=False,
    )


def main() -> None:
    """Train both stages, and compare draws of N(0, I) and of the prior with data."""
    seed_everything(0, verbose=False)
    model = build()
    data = PlaneData("rings", n_train=2000, n_eval=500, batch_size=300, eval_batch_size=500)
    trainer = Trainer(
        max_steps=STAGES * STEPS,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(model, data)

    model.eval()
    points, _ = plane_samples("rings", 1000, seed=1)
    for name, draws in (("N(0, I)", model.prior.reference(1000)), ("the prior", model.sample_latent(1000))):
        distance = maximum_mean_discrepancy(points, draws, width=0.5)
        print(f"squared MMD of {name}: {distance:.4f}")
    log_density = model.prior.log_prob(points[:4])
    print("normalised log-density of four points, nats:", [round(value, 2) for value in log_density.tolist()])


if __name__ == "__main__":
    main()
