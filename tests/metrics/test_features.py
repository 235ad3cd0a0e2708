"""Feature extractors."""

import hashlib
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as published

from lebm.component import describe
from lebm.errors import UserError
from lebm.metrics import FeaturesUnavailableError, FlatFeatures, InceptionFeatures


def test_flat_features_are_block_means() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert FlatFeatures(2)(x).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert FlatFeatures(2).figure == "frechet_distance/pixels2"


def test_extractors_describe_themselves() -> None:
    assert describe(FlatFeatures(4)) == {"class_path": "lebm.metrics.FlatFeatures", "init_args": {"size": 4}}
    assert describe(InceptionFeatures()) == {
        "class_path": "lebm.metrics.InceptionFeatures",
        "init_args": {"weights_path": None, "num_features": 2048},
    }


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where default weights are looked for, in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = InceptionFeatures.default_weights()
    assert tmp_path in file.parents
    return file


@pytest.mark.usefixtures("default")
def test_default_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FeaturesUnavailableError, match="FID is left out.*no network.*weights_path") as caught:
        InceptionFeatures().prepare()
    assert "\n" not in str(caught.value)


@pytest.fixture
def any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "FeatureExtractorInceptionV3", lambda *args, **options: nn.Identity())


@pytest.mark.usefixtures("any_network")
@pytest.mark.parametrize("fetched", [False, True])
def test_another_file_in_the_place_of_the_default_weights_is_not_called_fid(
    default: Path, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    def write(url: str, file: str, digest: str, **options: object) -> None:
        assert url == published.URL_INCEPTION_V3
        assert digest == "6726825d", "torch compares what it fetches"
        torch.save({"weight": torch.zeros(1)}, file)

    if not fetched:
        default.parent.mkdir(parents=True)
        write(published.URL_INCEPTION_V3, str(default), "6726825d")
    monkeypatch.setattr(torch.hub, "download_url_to_file", write)
    features = InceptionFeatures()
    features.prepare()
    assert features.digest == hashlib.sha256(default.read_bytes()).hexdigest()[:8]
    assert features.figure == f"frechet_distance/inception-{features.digest}"


def test_default_weights_must_be_plain_tensors_of_the_network(default: Path) -> None:
    default.parent.mkdir(parents=True)
    torch.save({"weight": print}, default)
    with pytest.raises(FeaturesUnavailableError, match="FID is left out.*not a file of plain tensors"):
        InceptionFeatures().prepare()
    torch.save({"weight": torch.zeros(1)}, default)
    with pytest.raises(
        FeaturesUnavailableError, match="FID is left out.*not the weights of torch-fidelity's Inception"
    ):
        InceptionFeatures().prepare()


def test_given_weights_must_exist_and_be_plain_tensors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        InceptionFeatures(str(tmp_path / "absent.pth")).prepare()
    torch.save({"weight": print}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        InceptionFeatures(str(tmp_path / "code.pth")).prepare()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of torch-fidelity's Inception"):
        InceptionFeatures(str(tmp_path / "other.pth")).prepare()


@pytest.fixture(scope="module")
def untrained_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right shapes; torch-fidelity builds its network only together with weights."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *args, **kwargs: None)
        torch.manual_seed(0)
        network = published.FeatureExtractorInceptionV3("untrained", ["2048"])
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_inception_sees_eight_bit_images_and_other_weights_are_not_called_fid(
    untrained_weights: Path,
) -> None:
    from torchmetrics.image.fid import NoTrainInceptionV3

    features = InceptionFeatures(str(untrained_weights))
    assert features.figure == "fid"  # until the file is known
    features.prepare()
    assert features.figure.startswith("frechet_distance/inception-")
    levels = torch.randint(
        0, 256, (2, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    ours = features(levels.float() / 127.5 - 1)
    theirs = NoTrainInceptionV3("untrained", ["2048"], str(untrained_weights), antialias=False)
    torch.testing.assert_close(ours, theirs(levels.expand(-1, 3, -1, -1)))
    assert ours.shape == (2, 2048)
    assert "three channels" in features.note
    assert features(torch.zeros(0, 3, 8, 8)).shape == (0, 2048)
