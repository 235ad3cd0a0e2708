"""What a model takes: another shape, type or range is said in one line."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import LambdaCallback
from torch.utils.data import DataLoader

from lebm.callbacks import ReconstructionError
from lebm.cli.recipes import built
from lebm.config.request import read_request
from lebm.data import to_unit_range
from lebm.errors import UserError, UserNotice
from lebm.estimators import LatentMLE
from lebm.models import CategoricalLikelihood, RecurrentGenerator
from lebm.models.observations import check_range, check_rows, event_shape
from tests.callbacks.tiny import TinyData, latent_mle, trainer
from tests.reliability.methods import model_of

GOOD = torch.linspace(-1, 1, 5 * 16).reshape(5, 1, 4, 4)
# one recipe per class of generator
KINDS = (
    *("latent_mle/mnist", "latent_mle/cifar10", "dual_mcmc/fashion_mnist", "joint_hierarchical/mnist"),
    *("joint_hierarchical/cifar10_conditional", "multistage_nce/toy2d"),
)
ANSWERS = ("encode", "reconstruct", "anomaly_score", "log_joint")


def ask(answer: str, x: torch.Tensor) -> torch.Tensor:
    model = latent_mle().eval()
    more = (torch.zeros(len(x), 2).double(),) if answer == "log_joint" else ()
    return getattr(model, answer)(x, *more)


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_refuses_what_is_no_image_of_the_model(answer: str) -> None:
    cases = {
        r"shape \(5, 4, 4\), but this model takes \(B, 1, 4, 4\); x.unsqueeze\(1\)": GOOD[:, 0],
        r"shape \(1, 4, 4\), but this model takes \(B, 1, 4, 4\); x\[None\]": GOOD[0],
        r"shape \(5, 1, 5, 5\), but this model takes": torch.zeros(5, 1, 5, 5),
        r"shape \(5, 3, 4, 4\), but this model takes": torch.zeros(5, 3, 4, 4),
        "x holds uint8, but .* lebm.data.to_unit_range": torch.zeros(5, 1, 4, 4, dtype=torch.uint8),
        "x holds int64": torch.zeros(5, 1, 4, 4, dtype=torch.int64),
        r"from 0 to 255, but this model takes images in \[-1, 1\]": 127.5 * (GOOD + 1),
    }
    for message, x in cases.items():
        with pytest.raises(UserError, match=message) as error:
            ask(answer, x)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(answer: str, value: float) -> None:
    x = GOOD.clone()
    x[3, 0, 2, 1] = x[4, 0, 0, 0] = value
    with pytest.raises(UserError, match="NaN or infinite values in 2 of 5 rows, first in row 3"):
        ask(answer, x)


def test_points_that_are_not_finite_are_refused() -> None:
    check_range(torch.tensor([[100.0, 2.0]]), (2,))
    with pytest.raises(UserError, match="in 1 of 2 rows, first in row 1"):
        check_range(torch.tensor([[100.0, 2.0], [0.0, float("nan")]]), (2,))


@pytest.mark.parametrize("answer", ANSWERS)
def test_images_between_0_and_1_give_a_warning(answer: str) -> None:
    with pytest.warns(UserWarning, match=r"in \[0, 1\], give 2 \* x - 1") as caught:
        ask(answer, (GOOD + 1) / 2)
    assert caught[0].filename != torch.__file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(answer, GOOD)
        ask(answer, 1.3 * GOOD)  # the end of a chain on images
        ask(answer, to_unit_range(torch.full((2, 1, 4, 4), 0, dtype=torch.uint8)))


def test_subclasses_of_a_method_are_checked_too() -> None:
    class Louder(LatentMLE):
        def anomaly_score(self, x, **settings):  # type: ignore[no-untyped-def]
            return 2 * super().anomaly_score(x, **settings)

    model = latent_mle().eval()
    model.__class__ = Louder
    with pytest.raises(UserError, match="x holds uint8"):
        model.anomaly_score(GOOD.byte())
    assert Louder.anomaly_score.__name__ == "anomaly_score"


def test_sentences_are_not_images() -> None:
    likelihood = CategoricalLikelihood(RecurrentGenerator(2, vocabulary_size=10, max_length=5))
    assert event_shape(likelihood) is None
    check_rows(torch.zeros(3, 4, dtype=torch.int64), None)


@pytest.mark.parametrize("name", KINDS)
def test_the_shape_that_is_expected_is_the_shape_that_is_made(name: str) -> None:
    model = built(read_request("validate-recipe", [name])).model
    made = model.decode(torch.zeros(1, model.latent_dim, device=model.device))
    assert event_shape(model.likelihood) == made.shape[1:]


def test_a_batch_without_data_names_what_is_expected() -> None:
    model = latent_mle()
    with pytest.raises(UserError, match=r"a batch must be a dictionary \{'x': .*'index': .*\}, not a tuple"):
        model.observations(("a", "b"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not a dictionary with 'image', 'label'"):
        model.observations({"image": GOOD, "label": GOOD})


class Own(LightningDataModule):
    """Loaders of one's own: rows of images, and no row numbers."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.rows = [{"x": row} for row in x]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=4)  # type: ignore[arg-type]

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def test_training_looks_at_the_values_of_its_first_batch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda x: looked.append(1) or look(x))
    model = latent_mle()
    for fits in (1, 2):  # the second may be on other data
        trainer(tmp_path, [], max_epochs=2).fit(model, datamodule=TinyData())
        assert len(looked) == fits
    model.encode(GOOD.double())  # after training the values are looked at again
    assert len(looked) == 3


def test_the_range_of_the_first_training_batch(tmp_path: Path) -> None:
    bytes_, half = 127.5 * (GOOD + 1).double(), (GOOD + 1).double() / 2
    fit = partial(trainer(tmp_path, [], limit_val_batches=0).fit, latent_mle())
    with pytest.raises(UserError, match=r"from 0 to 203.4, but this model takes images in \[-1, 1\]"):
        fit(datamodule=Own(bytes_))
    with pytest.warns(
        UserNotice, match=r"takes images in \[-1, 1\], so if these are in \[0, 1\], give 2 \* x - 1"
    ):
        fit(datamodule=Own(half))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserNotice)
        fit(datamodule=Own(GOOD.double()))


def test_rows_without_numbers(tmp_path: Path) -> None:
    """Evaluation numbers them as they come; what needs to know a row again says so."""
    numbers: list[int] = []
    error = ReconstructionError()
    see = LambdaCallback(on_test_batch_end=lambda *step: numbers.extend(step[3]["index"].tolist()))
    run, model, data = trainer(tmp_path, [error, see]), latent_mle(), Own(GOOD.repeat(2, 1, 1, 1).double())
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    assert numbers == list(range(10))  # batches of 4, 4 and 2
    assert error.figures
    for method in ("multistage_nce", "latent_mle+Remembered"):
        with pytest.raises(UserError, match='"index"'):
            model_of(method).loss({"x": torch.zeros(4, 1, 8, 8)}, 0)
