"""Networks that were not made for lebm: shapes, units, what checkpoints hold, and where weights come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.utils.data import DataLoader

import lebm
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.component import describe
from lebm.errors import UserError
from lebm.estimators import LatentMLE
from lebm.inference import Frozen, Variational
from lebm.models import (
    DiffusersAutoencoder,
    EnergyPrior,
    GaussianLikelihood,
    MLPEnergy,
    ModuleAutoencoder,
    ModuleEncoder,
    VectorUnits,
)
from lebm.samplers import Langevin

TRAINER: dict[str, Any] = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def images(n: int = 24, size: int = 16) -> Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def folder(path: Path, kind: str = "kl", seed: int = 0) -> str:
    """A tiny autoencoder of diffusers with random weights, saved."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(seed)
    if kind == "kl":
        model = diffusers.AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            latent_channels=2,
            norm_num_groups=4,
            sample_size=16,
        )
    else:
        model = diffusers.AutoencoderTiny(
            in_channels=1,
            out_channels=1,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=2,
        )
    model.save_pretrained(str(path))
    return str(path)


def with_prior(generator: nn.Module, inference: Any) -> LatentMLE:
    return LatentMLE(
        GaussianLikelihood(generator, sigma=0.3),
        EnergyPrior(MLPEnergy(generator.latent_dim, hidden=[16])),  # type: ignore[arg-type]
        prior_sampler=Langevin(3, 0.4),
        inference=inference,
    )


def trained(model: LatentMLE, file: Path, **start: Any) -> Trainer:
    trainer = Trainer(**{**TRAINER, **start}, plugins=[AtomicCheckpointIO()], enable_checkpointing=False)
    trainer.fit(model, DataLoader(images(), batch_size=8))  # type: ignore[arg-type]
    trainer.save_checkpoint(file)
    return trainer


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_a_frozen_autoencoder_of_diffusers_keeps_its_weights_in_its_folder(kind: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "vae", kind)
    model = with_prior(DiffusersAutoencoder(path, image_size=16), Frozen())
    before = [value.clone() for value in model.likelihood.parameters()]
    trained(model, tmp_path / "m.ckpt")
    assert all(map(torch.equal, before, model.likelihood.parameters()))
    state = torch.load(tmp_path / "m.ckpt", weights_only=True)["state_dict"]
    assert not any(".module." in name for name in state), "weights of the folder are in the checkpoint"
    opened = lebm.load(tmp_path / "m.ckpt")
    noise = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(model.eval().sample(2, generator=noise[0]), opened.sample(2, generator=noise[1]))
    x = images(2)
    assert torch.equal(model.code(x), opened.code(x))  # type: ignore[attr-defined]
    folder(tmp_path / "vae", kind, seed=1)
    with pytest.raises(UserError, match="holds other weights than in training"):
        lebm.load(tmp_path / "m.ckpt")


def test_a_fine_tuned_autoencoder_is_in_the_checkpoint(tmp_path: Path) -> None:
    path = folder(tmp_path / "vae")
    model = with_prior(DiffusersAutoencoder(path, trains=True), Variational())
    before = {name: value.clone() for name, value in model.likelihood.named_parameters()}
    trained(model, tmp_path / "m.ckpt")
    moved = {n for n, value in model.likelihood.named_parameters() if not torch.equal(value, before[n])}
    assert {name.split(".")[2] for name in moved} >= {"encoder", "decoder"}
    folder(tmp_path / "vae", seed=1)
    opened = lebm.load(tmp_path / "m.ckpt")
    x = images(2)
    assert torch.equal(model.eval().code(x), opened.code(x))  # type: ignore[attr-defined]


def test_a_folder_without_an_autoencoder_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no autoencoder of diffusers"):
        DiffusersAutoencoder(str(tmp_path / "empty"))


class Patches(nn.Module):
    """An exact autoencoder: the code is the image with its pixels as channels, scaled and moved."""

    def encode(self, x: Tensor) -> Tensor:
        return 7 * nn.functional.pixel_unshuffle(x, 2) + torch.arange(4.0).view(4, 1, 1)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle((z - torch.arange(4.0).view(4, 1, 1)) / 7, 2)


def test_latents_of_an_autoencoder_have_unit_variance_by_channel_and_decode_to_the_same() -> None:
    x = images(50, 8) * torch.tensor([0.1, 1.0]).repeat(4)  # columns of two scales
    own = ModuleAutoencoder(Patches(), out_shape=[1, 8, 8])
    own.measure(x)
    z = own.mirror()(x).mean
    by_channel = z.unflatten(1, own.latent_shape).transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_channel.mean(dim=1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(by_channel.std(dim=1), torch.ones(4))
    torch.testing.assert_close(own(z), x)
    scale = own.scale.clone()
    own.measure(3 * x)
    assert torch.equal(scale, own.scale), "measured once"


def test_units_count_the_spread_of_the_encoder() -> None:
    class Noisy(Patches):
        def encode(self, x: Tensor) -> Any:
            mean = super().encode(x)
            return mean, torch.full_like(mean, 3.0)

    x = images(400, 8)
    own = ModuleAutoencoder(Noisy(), out_shape=[1, 8, 8])
    own.measure(x)
    z = own.mirror()(x).rsample(torch.Generator().manual_seed(0))
    by_channel = z.unflatten(1, own.latent_shape).transpose(0, 1).flatten(1)  # 6,400 numbers each
    torch.testing.assert_close(by_channel.mean(dim=1), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(by_channel.std(dim=1), torch.ones(4), atol=0.036, rtol=0)  # four errors


def test_units_come_from_the_first_batch_and_stay_in_a_resumed_run(tmp_path: Path) -> None:
    def model() -> LatentMLE:
        return with_prior(ModuleAutoencoder(Patches(), out_shape=[1, 16, 16]), Frozen())

    first = model()
    trained(first, tmp_path / "m.ckpt")
    own: Any = first.likelihood.generator
    of_the_first = own.module.encode(images()[:8]).transpose(0, 1).flatten(1).std(dim=1)
    torch.testing.assert_close(own.scale.flatten(), of_the_first)
    second: Any = model()
    trainer = Trainer(**{**TRAINER, "max_epochs": 2}, enable_checkpointing=False)
    loader = DataLoader(images(8) / 2, batch_size=8)  # type: ignore[arg-type]
    trainer.fit(second, loader, ckpt_path=tmp_path / "m.ckpt", weights_only=True)
    assert torch.equal(second.likelihood.generator.scale, own.scale)


def test_an_encoder_may_give_points_pairs_or_both_in_one_tensor() -> None:
    x = torch.randn(3, 4)
    point = ModuleEncoder(nn.Identity(), 4)(x)
    both = ModuleEncoder(nn.Identity(), 2)(x)
    pair = ModuleEncoder(_Pair(), 4)(x)
    assert torch.equal(point.mean, x)
    torch.testing.assert_close(point.log_scale.exp(), torch.full((3, 4), 0.01))
    assert torch.equal(both.mean, x[:, :2])
    torch.testing.assert_close(both.log_scale, 0.5 * x[:, 2:])
    assert torch.equal(pair.mean, x + 1)
    torch.testing.assert_close(pair.log_scale, 0.5 * x)
    normal = Normal(x + 1, (0.5 * x).exp())
    alone = (SimpleNamespace(mean=x + 1, logvar=x),)  # of diffusers, with return_dict=False
    for made in (normal, Independent(normal, 1), alone, SimpleNamespace(latent_dist=alone[0])):
        found = ModuleEncoder(_Returns(made), 4)(x)
        torch.testing.assert_close(found.mean, pair.mean)
        torch.testing.assert_close(found.log_scale, pair.log_scale)
    with pytest.raises(ValueError, match="gives 4 numbers, not 3 latent coordinates"):
        ModuleEncoder(nn.Identity(), 3)(x)
    for made, kind in (((x, x, x), "tuple of 3"), ({"mean": x}, "dict")):
        with pytest.raises(ValueError, match=f"returns a {kind}; it must return latents, or their means"):
            ModuleEncoder(_Returns(made), 4)(x)


class _Returns(nn.Module):
    """An encoder that returns something made before, and a decoder of images."""

    def __init__(self, made: Any, shape: tuple[int, ...] = (1, 4)) -> None:
        super().__init__()
        self.made, self.shape = made, shape

    def forward(self, x: Tensor) -> Any:
        return self.made

    encode = forward

    def decode(self, z: Tensor) -> Any:
        return (torch.zeros(len(z), *self.shape),)


def test_an_autoencoder_is_tried_before_it_is_trained() -> None:
    assert ModuleAutoencoder(_Returns(torch.zeros(1, 3)), [1, 4])(torch.zeros(5, 3)).shape == (5, 1, 4)
    with pytest.raises(ValueError, match=r"decode gives the shape \(1, 4\), not \(1, 1, 4\)"):
        ModuleAutoencoder(_Returns(torch.zeros(1, 3), (4,)), [1, 4])
    with pytest.raises(UserError, match="first batch of at least two rows"):
        VectorUnits(3).measure(torch.zeros(1, 3))


class _Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x


def test_a_generator_of_plain_layers_describes_itself() -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1, bias=False), nn.GroupNorm(1, 3), nn.Tanh()
    )
    written: Any = describe(GaussianLikelihood(net, latent_dim=32))
    layers = written["init_args"]["generator"]["init_args"]["args"]
    assert [layer["class_path"].rpartition(".")[2] for layer in layers] == [
        "ConvTranspose2d",
        "GroupNorm",
        "Tanh",
    ]
    assert layers[0]["init_args"]["bias"] is False
    assert layers[0]["init_args"]["stride"] == [2, 2]
