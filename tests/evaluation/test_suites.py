"""Suites measure what other code measures of the same model."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

import lebm
from lebm.config.recipes import load_recipe
from lebm.data import ImageData, to_unit_range
from lebm.errors import UserError
from lebm.evaluation import chains as chains_module
from lebm.evaluation.anomaly import OUT_SETS, _names, _sets, anomaly_suite, ood_suite, test_scores
from lebm.evaluation.chains import chain_suite, sample_chunks
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import RunImages, batches
from lebm.evaluation.image import image_suite, kernel_distance
from lebm.evaluation.intervals import histogram, ranking_curves
from lebm.evaluation.marginal_likelihood import likelihood_suite
from lebm.evaluation.record import SuiteResult
from lebm.evaluation.scores import all_scores, score_pass
from lebm.metrics import FlatFeatures, surprisal

test_scores.__test__ = False  # type: ignore[attr-defined]

SETTINGS = Settings(
    seed=3,
    n_samples=300,
    extractor=FlatFeatures(2),
    resamples=50,
    ood_images=15,
    likelihood_images=4,
    levels=5,
    chains=4,
)


class _Features(FlatFeatures):
    num_features = 4


@pytest.fixture
def subject(run: Path) -> Subject:
    settings = load_recipe(run / "config.yaml")["data"]["init_args"]
    return Subject(lebm.load(run), RunImages.of(ImageData(**settings)))


def values(result: SuiteResult, split: str | None = None) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures if split in (None, figure.split)}  # type: ignore[misc]


def test_scores_are_those_of_the_test_pass_and_of_their_parts(subject: Subject) -> None:
    x = to_unit_range(subject.images.test.images())
    batch = {"x": x, "index": torch.arange(len(x)), "label": subject.images.test.labels}
    found, model = test_scores(subject, SETTINGS), subject.model
    outputs = model.test_step(batch, 0)
    torch.testing.assert_close(
        found["anomaly_score"], outputs["anomaly_score"].double(), rtol=1e-5, atol=1e-4
    )
    error = (outputs["x"] - outputs["reconstruction"]).square().flatten(1).mean(1).double()
    torch.testing.assert_close(found["reconstruction"], error, rtol=1e-4, atol=1e-6)
    normaliser = 0.5 * 16 * np.log(2 * np.pi * 0.3**2)
    torch.testing.assert_close(
        found["log_joint"], found["prior"] + 16 * error / (2 * 0.3**2) + normaliser, rtol=1e-4, atol=1e-3
    )
    reference = 0.5 * outputs["z"].double().square().sum(1) + np.log(2 * np.pi)
    torch.testing.assert_close(found["prior"] - found["energy"], reference, rtol=1e-4, atol=1e-4)


def test_anomaly_figures_of_both_splits(subject: Subject) -> None:
    result = anomaly_suite(subject, SETTINGS)
    scores, labels = test_scores(subject, SETTINGS), subject.images.test.labels
    for name, score in scores.items():
        assert values(result, "lebm")[f"auroc/{name}"] == pytest.approx(roc_auc_score(labels == 2, score))
        assert values(result, "lebm")[f"auprc/{name}"] == pytest.approx(
            average_precision_score(labels == 2, score)
        )
    kept = subject.images.protocols["official"].rows
    places = [int(np.flatnonzero(subject.images.test.rows == row)[0]) for row in kept]
    score = scores["anomaly_score"][places]
    assert values(result, "official")["auroc/anomaly_score"] == pytest.approx(
        roc_auc_score(labels[places] == 2, score)
    )
    train = subject.images.train
    assert train is not None
    normal = score_pass(subject.model, batches(train, 32), "training images")
    both = sum(surprisal(scores[name], normal[name]) for name in ("reconstruction", "prior"))
    assert values(result, "lebm")["auroc/combined"] == pytest.approx(roc_auc_score(labels == 2, both))
    assert result.protocol["training_images_for_combined"] == len(train)
    details = next(figure.details for figure in result.figures if figure.split == "official")
    assert details["rows_left_out_as_trained_on"] == 30 - len(kept) > 0
    assert details["auprc_lowest"] < details["base_rate"]


def test_figures_of_several_held_out_classes(run: Path) -> None:
    settings = load_recipe(run / "config.yaml")["data"]["init_args"] | {"held_out_label": None}
    images = RunImages.of(ImageData(**{**settings, "normal_label": "class0"}))
    subject = Subject(lebm.load(run), images)
    labels = images.test.labels
    assert images.held_out_label == [1, 2]
    result = anomaly_suite(subject, SETTINGS)
    scores = test_scores(subject, SETTINGS)
    assert values(result, "lebm")["auroc/prior"] == pytest.approx(roc_auc_score(labels > 0, scores["prior"]))
    counts = {figure.split: figure.details["anomalies"] for figure in result.figures}
    assert counts == {"lebm": 60, "official": 20}
    error = scores["reconstruction"][labels == 0].mean()
    assert values(image_suite(subject, SETTINGS))["reconstruction_mse"] == pytest.approx(float(error))
    sets = ood_suite(subject, SETTINGS).protocol["sets"]
    assert sets["held_out_labels"] == "the held-out label [1, 2]"


def test_rows_of_the_other_split_that_the_test_pass_never_saw_are_scored(run: Path) -> None:
    settings = {**load_recipe(run / "config.yaml")["data"]["init_args"], "anomaly_split": "official"}
    subject = Subject(lebm.load(run), RunImages.of(ImageData(**settings)))
    result = anomaly_suite(subject, SETTINGS)
    figure = next(figure for figure in result.figures if figure.split == "lebm")
    assert figure.n == len(subject.images.protocols["lebm"])
    assert figure.details["anomalies"] == 30  # all of both sources; a third of 60 and 30


def test_image_figures_against_torchmetrics(subject: Subject) -> None:
    result = image_suite(subject, SETTINGS)
    fake = torch.cat([x for _, x, _ in sample_chunks(subject.model, 300, 3, (1, 4, 4))])
    assert subject.images.train is not None
    real = to_unit_range(subject.images.train.images())
    metric = FrechetInceptionDistance(feature=_Features(2)).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake.detach(), real=False)
    found = values(result)
    assert found["frechet_distance/pixels2"] == pytest.approx(float(metric.compute()), rel=1e-4)
    normal = subject.images.test.labels != 2
    assert found["reconstruction_mse"] == pytest.approx(
        float(test_scores(subject, SETTINGS)["reconstruction"][normal].mean())
    )
    assert {"kernel_distance/pixels2", "precision", "recall", "density", "coverage"} <= found.keys()
    assert image_suite(subject, SETTINGS).figures == result.figures  # nothing global is drawn from


def test_too_few_samples_or_images_are_refused(subject: Subject) -> None:
    with pytest.raises(
        UserError,
        match=r"at least 20 samples and 20 real images, not --n-samples 2 and the \d+ of the train split",
    ):
        image_suite(subject, Settings(n_samples=2, extractor=FlatFeatures(2)))
    subject.images = replace(
        subject.images, test=subject.images.test.subset(np.arange(len(subject.images.test)) < 19)
    )
    with pytest.raises(UserError, match=r"not --n-samples 20 and the \d+ of the test split"):
        image_suite(subject, Settings(n_samples=20, real_split="test", extractor=FlatFeatures(2)))
    enough = image_suite(subject, Settings(n_samples=20, extractor=FlatFeatures(2)))
    assert all(figure.low is not None for figure in enough.figures)


def test_the_kernel_distance_is_the_unbiased_discrepancy() -> None:
    real, fake = torch.randn(2, 2000, 3, generator=torch.Generator().manual_seed(0)).double()
    fake = fake + 0.2

    def mean(a: Tensor, b: Tensor) -> float:
        kernel = polynomial_kernel(a, b, degree=3, gamma=1 / 3, coef0=1)
        return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(b) - 1)) if a is b else kernel.mean())

    found = kernel_distance(real, fake, 0)
    assert found.low < mean(real, real) + mean(fake, fake) - 2 * mean(real, fake) < found.high
    assert found.low > 0.05


class Watched(FlatFeatures):
    """Notices generated images; the tests' own are all 0.25."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        Watched.seen += bool((x == 0.25).all())
        return super().forward(x)


def test_samples_that_are_not_images_are_refused_before_any_feature(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(x: Tensor, message: str) -> None:
        monkeypatch.setattr(subject.model, "sample", lambda n, **options: x.expand(n, *x.shape[1:]))
        with pytest.raises(UserError, match=message):
            image_suite(subject, Settings(n_samples=300, extractor=Watched(2)))

    refused(torch.full((1, 1, 4, 4), torch.nan), "samples 0 to 249 are not finite")
    refused(torch.full((1, 3, 4, 4), 0.25), r"images of shape \(3, 4, 4\), but the data have \(1, 4, 4\)")
    refused(torch.full((1, 1, 8, 8), 0.25), r"images of shape \(1, 8, 8\)")
    refused(torch.full((1, 2, 4, 4), 0.25), r"images of shape \(2, 4, 4\)")
    assert Watched.seen == 0


def test_ood_sets_and_their_figures(subject: Subject, tmp_path: Path) -> None:
    from tests.evaluation.conftest import write_pictures

    other, noise_too = (str(write_pictures(tmp_path / name, test=12)) for name in ("others", "noise"))
    result = ood_suite(subject, Settings(**{**vars(SETTINGS), "ood": (other, noise_too)}))
    assert set(result.protocol["sets"]) == {*OUT_SETS, "label_2", "others", noise_too}
    assert {figure.split for figure in result.figures} == set(result.protocol["sets"])
    names = [(figure.name, figure.split) for figure in result.figures]
    assert len(set(names)) == len(names)
    noise = values(result, "noise")
    assert noise["auroc/reconstruction"] > 0.75  # bright dots on what was dark
    assert all(
        0 <= figure.low <= figure.value <= figure.high <= 1
        for figure in result.figures
        if figure.name.startswith("fpr_at_95/")
    )
    assert values(result, "others")["auroc/reconstruction"] < 0.75


def test_the_held_out_images_are_chosen_by_the_seed(subject: Subject) -> None:
    """Not the first of them, which have one class in a sorted data set."""
    test = subject.images.test
    every = test.subset(test.anomaly.numpy()).observations()
    settings = Settings(**{**vars(SETTINGS), "ood_images": 5})
    (x,) = [x for name, _, x in _sets(subject, settings, every, ["label_2"]) if name == "label_2"]
    found = {row for row, image in enumerate(every) if any(torch.equal(image, other) for other in x)}
    assert len(found) == 5
    assert found != set(range(5))


def test_names_of_further_out_sets(subject: Subject) -> None:
    def names(*paths: str) -> list[str]:
        return _names(paths, {"noise"})

    assert names("uoft-cs/cifar10", "data/svhn/") == ["cifar10", "svhn"]
    assert names("a/x", "b/x", "c/y") == ["a/x", "b/x", "y"]
    assert names("x", "b/x", "./noise") == ["x", "b/x", "./noise"]
    with pytest.raises(UserError, match="--ood a/x is the name of another set"):
        names("a/x", "a/x/")
    with pytest.raises(
        UserError, match=r"--ood noise is the name of another set; write it once, or as \./noise"
    ):
        names("noise")
    with pytest.raises(UserError, match="--ood label_2 is the name"):
        ood_suite(subject, Settings(ood=("label_2",)))


def test_what_the_out_sets_are() -> None:
    x = torch.arange(32.0).reshape(2, 1, 4, 4) / 16 - 1
    made = {name: change(x, torch.Generator().manual_seed(0)) for name, (_, change) in OUT_SETS.items()}
    assert all(y.shape == x.shape for y in made.values())
    assert torch.equal(made["inverted"], -x)
    assert torch.equal(made["rotated"][0, 0, 0], x[0, 0, :, -1])
    assert torch.equal(made["upside_down"][0, 0, 0], x[0, 0, -1])
    assert torch.equal(made["shuffled"].flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    assert not torch.equal(made["shuffled"], x)
    assert made["constant"].flatten(1).std(1).eq(0).all()
    assert made["blurred"].std() < x.std()


def test_scores_that_are_not_finite_are_refused(subject: Subject) -> None:
    batch = {"x": torch.zeros(2, 1, 4, 4), "index": torch.arange(2), "label": torch.zeros(2).long()}
    broken = copy.deepcopy(subject.model)
    with torch.no_grad():
        for weight in broken.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(UserError, match="2 non-finite values of .*, the first at row 0"):
        score_pass(broken, [batch], "test images")
    assert set(all_scores(subject.model, batch)) == {
        "anomaly_score",
        "log_joint",
        "reconstruction",
        "prior",
        "energy",
    }


@pytest.mark.slow
def test_likelihood_and_chains_of_a_run(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains_module, "STEPS", 100)
    result = likelihood_suite(subject, SETTINGS)
    found = values(result)
    assert abs(found["log_z/below"] - found["log_z/above"]) < 0.5
    assert found["log_likelihood/importance_sampling"] < found["log_likelihood/ais"] + 3
    assert found["bits_per_dimension/ais"] == pytest.approx(
        -(found["log_likelihood/ais"] - 16 * np.log(127.5)) / 16 / np.log(2)
    )
    assert found["bracket_gap/simulated_images"] > -1
    chains = chain_suite(subject, SETTINGS)
    assert {"split_rhat/prior", "split_rhat/posterior", "bulk_ess/prior"} <= values(chains).keys()
    assert len(chains.curves["prior"]["log_density"][0]) == 101
    assert chains.protocol["findings"]["posterior"]


def test_curves_are_thinned_and_keep_their_areas() -> None:
    generator = torch.Generator().manual_seed(0)
    anomaly = torch.arange(4000) < 1000
    score = torch.randn(4000, generator=generator) + anomaly
    curves = ranking_curves(score, anomaly)
    roc, pr = (torch.tensor(curves[name]) for name in ("roc", "pr"))
    assert len(roc) <= 121
    assert roc[0].tolist() == [0, 0]
    assert roc[-1].tolist() == [1, 1]
    assert float(torch.trapezoid(roc[:, 1], roc[:, 0])) == pytest.approx(
        roc_auc_score(anomaly, score), abs=2e-3
    )
    assert float(torch.trapezoid(pr[:, 1], pr[:, 0])) == pytest.approx(
        average_precision_score(anomaly, score), abs=5e-3
    )
    shares = histogram({"a": score[:1000], "b": torch.zeros(5)})
    assert sum(shares["shares"]["a"]) == pytest.approx(1, abs=1e-3)
    assert shares["low"] < shares["high"]
    flat = histogram({"a": torch.zeros(3)})
    assert flat["low"] < 0 < flat["high"]
