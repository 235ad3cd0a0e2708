"""Figures of revision against other libraries and by hand, and the guard against every way in which a chain
goes wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from lebm.callbacks import InterpolationGrid, RevisionError, divergence
from lebm.callbacks.divergence import Divergence, DivergenceError
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.metrics import reconstruction_rows
from lebm.models import GaussianLikelihood, MLPEncoder, MLPGenerator, ResNetEnergy
from lebm.plots import between
from lebm.samplers import Langevin
from tests.callbacks.tiny import SHAPE, TinyData, trainer


def model(**settings) -> DualMCMCTeaching:
    torch.manual_seed(0)
    arguments = {
        "energy": ResNetEnergy(SHAPE, [4, 4]),
        "likelihood": GaussianLikelihood(MLPGenerator(2, SHAPE, hidden=[8]), 0.3),
        "encoder": MLPEncoder(2, SHAPE, hidden=[8]),
        "image_sampler": Langevin(2, 0.01),
        "posterior_sampler": Langevin(10, 0.1),
        "optimizer": AdamGroups({"energy": 1e-3, "generator": 1e-3, "encoder": 1e-3}),
        "temperature": 1e-4,
        "noise_shards": 2,
    }
    return DualMCMCTeaching(**(arguments | settings)).double()


def test_figures_of_single_images_have_their_closed_forms() -> None:
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shift = torch.tensor([0.1, 0.2, 0.4])[:, None, None, None]
    figures = reconstruction_rows(x, x + shift)
    torch.testing.assert_close(figures["mse"], shift.flatten().double() ** 2)
    torch.testing.assert_close(figures["psnr"], 10 * torch.log10(4 / shift.flatten().double() ** 2))
    assert figures["ssim"].shape == (3,)
    torch.testing.assert_close(reconstruction_rows(x, x)["ssim"], torch.ones(3).double())
    assert figures["ssim"][0] > figures["ssim"][1] > figures["ssim"][2]
    assert "ssim" not in reconstruction_rows(x[:, :, :4, :4], x[:, :, :4, :4])


def test_steps_are_scored_separately(tmp_path: Path) -> None:
    callback = RevisionError(steps=[0, 10])
    estimator, data = model(), TinyData(held_out_label=None)
    trainer(tmp_path, [callback]).validate(estimator, data, verbose=False)
    batches = []
    for batch in data.val_dataloader():
        x = data.on_after_batch_transfer(batch, 0)["x"].double()
        noise = [estimator.sample_noise("encode", batch["index"]) for _ in range(2)]
        batches.append(
            [
                (estimator.reconstruct(x, steps=k, generator=n) - x).square().flatten(1).mean(1)
                for k, n in zip((0, 10), noise)
            ]
        )
    alone, revised = (torch.cat(parts).mean().item() for parts in zip(*batches))
    assert callback.figures["val/mse/steps0"] == pytest.approx(alone)
    assert callback.figures["val/mse/steps10"] == pytest.approx(revised)
    assert callback.figures["val/mse/steps10"] < callback.figures["val/mse/steps0"]
    assert callback.figures["val/psnr/steps10"] > callback.figures["val/psnr/steps0"]
    with pytest.raises(ValueError, match="numbers of at least 0"):
        RevisionError(steps=[-1])


def test_a_path_between_images_begins_and_ends_with_their_reconstructions(tmp_path: Path) -> None:
    estimator, data = model(), TinyData(held_out_label=None)
    trainer(tmp_path, [InterpolationGrid(pairs=2, columns=5)]).validate(estimator, data, verbose=False)
    (picture,) = (tmp_path / "images" / "interpolation").glob("latest.png")
    pixels = np.asarray(Image.open(picture))
    batch = next(iter(data.val_dataloader()))
    x = data.on_after_batch_transfer(batch, 0)["x"].double()
    z = estimator.encode(x, generator=estimator.sample_noise("encode", batch["index"]))
    for column, at in ((0, z[0]), (4, z[2]), (2, between(z[0], z[2], 5)[2])):
        shown = pixels[2:6, 2 + 6 * column : 6 + 6 * column, 0]
        wanted = ((estimator.decode(at[None])[0, 0] + 1) * 127.5).clamp(0, 255).round().numpy()
        assert np.abs(shown - wanted).max() <= 1


def sound() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "generated images": torch.rand(4, 1, 4, 4),
        "revised images": torch.rand(4, 1, 4, 4),
        "revised latents": torch.randn(4, 2),
        "energy gap": torch.tensor(0.5),
    }


def test_the_guard_names_the_tensor_and_leaves_sound_ones_alone() -> None:
    guard = Divergence(max_energy_gap=10.0)
    assert guard.revision_cause(sound()) == ""
    assert guard.revision_cause({}) == ""
    broken = sound()
    broken["revised images"][2, 0, 1, 1] = torch.nan
    assert guard.revision_cause(broken) == "the revised images are not finite (1 of 4 rows)"
    assert "revised latents are not finite" in guard.revision_cause(
        {**sound(), "revised latents": torch.full((4, 2), torch.inf)}
    )
    assert "revised images reach 600, beyond 100" in guard.revision_cause(
        {**sound(), "revised images": torch.full((4, 1, 4, 4), -600.0)}
    )
    assert "energy gap is -11, beyond max_energy_gap 10" in guard.revision_cause(
        {**sound(), "energy gap": torch.tensor(-11.0)}
    )
    assert "a dead generator" in guard.revision_cause(
        {**sound(), "generated images": torch.full((4, 1, 4, 4), 0.3)}
    )


FAULTS = {
    "explodes": ({"image_sampler": Langevin(60, 3.0), "temperature": 1e-3}, "revised images"),
    "dead": ({}, "dead generator"),
    "nan": ({}, r"(revised images are|parameter energy\S+ is) not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_goes_wrong_ends_in_that_step_with_its_last_checkpoint_intact(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "MAX_PIXEL", 10.0)
    settings, message = FAULTS[fault]
    estimator = model()

    class Breaks(ModelCheckpoint):
        """Breaks the model after two sound steps, each of which wrote a checkpoint."""

        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            super().on_train_batch_end(trainer, pl_module, *args)
            if trainer.global_step == 2:
                for name, value in settings.items():
                    setattr(pl_module, name, value)
                for parameter in pl_module.energy.parameters():
                    parameter.data *= torch.nan if fault == "nan" else 1
                for parameter in pl_module.likelihood.parameters():
                    parameter.data *= 0 if fault == "dead" else 1

    saving = Breaks(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    callbacks = [Divergence(), saving]
    with pytest.raises(DivergenceError, match=rf"{message}.*at step 2.*last healthy checkpoint") as caught:
        trainer(tmp_path, callbacks, enable_checkpointing=True).fit(estimator, TinyData(held_out_label=None))
    assert str(caught.value).count("\n") == 0
    kept = sorted(tmp_path.glob("step=*.ckpt"))
    assert [path.stem for path in kept] == ["step=1", "step=2"]
    restored = DualMCMCTeaching.load_from_checkpoint(kept[-1])
    assert all(torch.isfinite(p).all() for p in restored.parameters())
