"""Feature extractors."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as published

from lebm.component import describe
from lebm.errors import UserError
from lebm.metrics import FeaturesUnavailableError, FlatFeatures, InceptionFeatures, RandomProjectionFeatures


def test_flat_features_are_block_means() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert FlatFeatures(2)(x).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert FlatFeatures(2).figure == "frechet_distance/pixels2"


def test_random_projection_is_linear_fixed_and_takes_no_rows() -> None:
    x = torch.randn(5, 3, 4, 4)
    features = RandomProjectionFeatures(7, seed=1)
    torch.testing.assert_close(features(x[:2] + 2 * x[2:4]), features(x[:2]) + 2 * features(x[2:4]))
    assert torch.equal(features(x), RandomProjectionFeatures(7, seed=1)(x))
    assert not torch.equal(features(x), RandomProjectionFeatures(7, seed=2)(x))
    assert features(x[:0]).shape == (0, 7)


def test_extractors_describe_themselves() -> None:
    assert describe(FlatFeatures(4)) == {"class_path": "lebm.metrics.features.FlatFeatures", "init_args": {"size": 4}}
    assert describe(InceptionFeatures()) == {
        "class_path": "lebm.metrics.features.InceptionFeatures",
        "init_args": {"weights_path": None, "num_features": 2048},
    }


def test_default_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(published, "load_state_dict_from_url", offline)
    with pytest.raises(FeaturesUnavailableError, match="FID is left out.*no network.*weights_path") as caught:
        InceptionFeatures().prepare()
    assert "\n" not in str(caught.value)


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
def test_inception_sees_eight_bit_images_and_other_weights_are_not_called_fid(untrained_weights: Path) -> None:
    from torchmetrics.image.fid import NoTrainInceptionV3

    features = InceptionFeatures(str(untrained_weights))
    assert features.figure == "fid"  # until the file is known
    features.prepare()
    assert features.figure.startswith("frechet_distance/inception-")
    levels = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = features(levels.float() / 127.5 - 1)
    theirs = NoTrainInceptionV3("untrained", ["2048"], str(untrained_weights), antialias=False)
    torch.testing.assert_close(ours, theirs(levels.expand(-1, 3, -1, -1)))
    assert ours.shape == (2, 2048)
    assert "three channels" in features.note
    assert features(torch.zeros(0, 3, 8, 8)).shape == (0, 2048)
