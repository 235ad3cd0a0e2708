"""Training on two processes is training on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lebm import load
from lebm.data import ImageData
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import Langevin, PersistentChains
from tests.distributed import run_processes

RATE = 1e-3


class Keep(Callback):
    """Writes the first step's synchronised gradients and the last parameters, in the first process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, dict[str, torch.Tensor]] = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == 0:
            self.kept["gradients"] = {name: p.grad.clone() for name, p in pl_module.named_parameters()}

    def on_train_end(self, trainer, pl_module) -> None:
        self.kept["parameters"] = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        trainer.save_checkpoint(self.path.with_suffix(".ckpt"))  # with the pools of all processes
        if trainer.is_global_zero:
            torch.save(self.kept, self.path)


def fit(folder: Path, processes: int, precision: str, steps: int) -> None:
    torch.manual_seed(0)
    model = LatentMLE(
        GaussianLikelihood(MLPGenerator(4, [1, 28, 28], hidden=[24]), 0.3),
        EnergyPrior(MLPEnergy(4, hidden=[16, 16])),
        PersistentChains(Langevin(8, 0.4, max_grad_norm=5.0), slots=2, restart_rate=0.2),
        Langevin(6, 0.1),
        AdamGroups({"generator": RATE, "energy": RATE / 5}, max_grad_norm={"generator": 50.0}),
        noise_shards=4,
    )
    # 15 batches an epoch, so that 20 steps cross an epoch; flips use random numbers too
    data = ImageData("embedded:mnist", batch_size=24, limit_train=360, limit_eval=24, flip=True)
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
        callbacks=[Keep(folder / "kept.pt")],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)


def train(folder: Path, processes: int, precision: str, steps: int) -> tuple[dict, dict]:
    """The last parameters and the first gradients."""
    if processes > 1:
        run_processes(fit, folder, processes, precision, steps, world_size=processes)
    else:
        fit(folder, processes, precision, steps)
    kept = torch.load(folder / "kept.pt")
    pool = load(folder / "kept.ckpt").prior_sampler.state_dict()["pool"]  # type: ignore[union-attr]
    assert pool.shape == (2, 24, 4)
    return kept["parameters"], kept["gradients"]


def test_float64_parameters_agree_after_20_steps(tmp_path):
    one, _ = train(tmp_path, 1, "64-true", 20)
    two, _ = train(tmp_path, 2, "64-true", 20)
    start, _ = train(tmp_path, 1, "64-true", 1)
    for name in one:
        assert one[name].dtype == torch.float64
        assert (one[name] - two[name]).abs().max() < 1e-9, name
        assert (one[name] - start[name]).abs().max() > 1e-4, name  # and they did move


@pytest.mark.slow
def test_float32_first_gradients_agree(tmp_path):
    one_after, one = train(tmp_path, 1, "32-true", 20)
    two_after, two = train(tmp_path, 2, "32-true", 20)
    for name in one:
        assert (one[name] - two[name]).norm() <= 1e-5 * one[name].norm(), name
        # Adam turns the rounding of a near-zero gradient into a whole step, so only a few learning rates can
        # be asked of parameters
        assert (one_after[name] - two_after[name]).abs().max() < 10 * RATE, name


def test_processes_that_do_not_divide_the_shards_are_refused():
    from lebm.samplers import Noise

    with pytest.raises(ValueError, match="must divide the number of noise shards"):
        Noise.shards(0, shards=8, rank=0, world_size=3)
