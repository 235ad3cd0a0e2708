"""An energy for a model that is already trained: the two-stage scheme of JointHierarchicalPrior."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lebm.data import ImageData
from lebm.errors import UserError
from lebm.estimators import JointHierarchicalPrior
from lebm.inference import Frozen
from lebm.models import (
    BottomLayer,
    ConvEnergy,
    DiagonalGaussian,
    GaussianHierarchy,
    GaussianLikelihood,
    HierarchicalPrior,
    LatentLayout,
    LayerEnergies,
    MLPEnergy,
    MLPGenerator,
)
from lebm.samplers import Langevin
from lebm.samplers.noise import normal
from tests.estimators.hierarchical_models import batch_of, conditional, gradients, rates


def test_two_stage_trains_the_energy_and_nothing_else() -> None:
    model, batch = conditional("two_stage", space="noise"), batch_of()
    assert list(model.networks()) == ["energy"]
    model.train()
    assert not model.likelihood.training
    assert not model.encoder.training
    assert model.prior.tilt.training
    loss = model.loss(batch, 0)
    z = model.encoder(batch["x"]).rsample(model.noise("posterior", 0)).detach()
    negatives = model.negatives(8, 0)
    expected = model.prior.energy(z).mean() - model.prior.energy(negatives).mean()
    torch.testing.assert_close(
        gradients(model, loss)["energy"], gradients(model, expected)["energy"], rtol=1e-10, atol=1e-13
    )
    loss.backward()
    assert all(
        p.grad is None
        for part in (model.likelihood, model.encoder, model.reference)
        for p in part.parameters()
    )


def test_a_resumed_two_stage_run_does_not_need_its_backbone(tmp_path) -> None:
    """The frozen weights are in its checkpoint, and it ends where the undisturbed run ends, bit for bit."""
    backbone, middle = tmp_path / "backbone.ckpt", tmp_path / "step=3.ckpt"
    every = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")

    def fit(model: JointHierarchicalPrior, steps: int, resume=None, **settings) -> Trainer:
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_steps=steps,
            accelerator="cpu",
            limit_val_batches=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **settings,
        )
        data = ImageData(
            "embedded:mnist", image_size=4, channels=1, batch_size=8, limit_train=32, limit_eval=8
        )
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
        return trainer

    first, whole, resumed = (
        conditional("variational"),
        *(conditional("two_stage", space="noise", backbone=str(backbone)) for _ in range(2)),
    )
    fit(first, 2, enable_checkpointing=False).save_checkpoint(backbone)
    fit(whole, 6, callbacks=[every])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]) != name.startswith("prior.tilt"), name
    backbone.unlink()
    fit(resumed, 6, resume=middle, enable_checkpointing=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(UserError, match="no such run folder or checkpoint"):
        fit(resumed, 6, enable_checkpointing=False)


class GroupHierarchy(GaussianHierarchy):
    """A foreign hierarchy: four numbers whose mean is read from a convolutional group above them."""

    def __init__(self) -> None:
        super().__init__()
        self.layout = LatentLayout([4, [2, 8, 8]])
        self.latent_dim = self.layout.latent_dim
        self.register_buffer("anchor", torch.zeros(()))

    def conditionals(self, z: torch.Tensor) -> DiagonalGaussian:
        top = self.layout.split(z)[1]
        return DiagonalGaussian(
            self.layout.join([top.mean(dim=(2, 3)).repeat(1, 2), torch.zeros_like(top)]), torch.zeros_like(z)
        )

    def place(self, noise: torch.Tensor) -> torch.Tensor:
        bottom, top = self.layout.split(noise)
        return self.layout.join([top.mean(dim=(2, 3)).repeat(1, 2) + bottom, top])


class TopDownDraw:
    """A posterior that is no diagonal Gaussian: all that can be had of it is a draw."""

    def __init__(self, mean: torch.Tensor) -> None:
        self.mean = mean

    def rsample(self, generator=None) -> torch.Tensor:
        noise = normal(generator, self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + 0.1 * noise.cumsum(dim=1)


class TopDownEncoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(16, 132)

    def forward(self, x: torch.Tensor) -> TopDownDraw:
        return TopDownDraw(self.net(x.flatten(1)))


def test_a_foreign_hierarchy_gets_an_energy() -> None:
    torch.manual_seed(0)
    prior = HierarchicalPrior(
        LayerEnergies([MLPEnergy(4, [8]), ConvEnergy([2, 8, 8], 4, 8)]), GroupHierarchy()
    )
    likelihood = GaussianLikelihood(BottomLayer(MLPGenerator(4, [1, 4, 4], [8]), [4, 128]), 0.5)
    model = JointHierarchicalPrior(
        likelihood, prior, Langevin(5, 0.1), rates("energy"), Frozen(TopDownEncoder()), space="noise"
    ).double()
    batch = batch_of()
    model.loss(batch, 0).backward()
    assert all(p.grad is not None for p in model.prior.tilt.parameters())
    z = model.encode(batch["x"], generator=torch.Generator().manual_seed(0))
    drawn = model.redraw(z, [0], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn[:, 4:], z[:, 4:])
    assert (drawn[:, :4] - z[:, :4]).abs().min() > 0
    assert model.sample(3).shape == (3, 1, 4, 4)
    assert torch.isfinite(model.log_joint(batch["x"], model.redraw(z, [0]))).all()
