"""Classes are named by public paths, and the paths that older checkpoints hold lead to the same classes."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lebm
from lebm.checkpoint.rebuild import resolve
from lebm.component import Component, describe, public_path
from lebm.errors import UserError

PATHS_OF_EEFB31C = [
    "lebm.callbacks.anomaly.AnomalyDetection",
    "lebm.callbacks.base.EvaluationCallback",
    "lebm.callbacks.divergence.Divergence",
    "lebm.callbacks.frechet.FrechetDistance",
    "lebm.callbacks.divergence.ChainHealth",
    "lebm.callbacks.hierarchical.HierarchicalSamples",
    "lebm.callbacks.hierarchical.LatentTraversal",
    "lebm.callbacks.hierarchical.LayerReconstruction",
    "lebm.callbacks.hierarchical_classes.LayerClassification",
    "lebm.callbacks.hierarchical_stress.LatentAttack",
    "lebm.callbacks.hierarchical_stress.LongChain",
    "lebm.callbacks.samples.InterpolationGrid",
    "lebm.callbacks.latents.LatentPicture",
    "lebm.callbacks.reconstruction.ReconstructionError",
    "lebm.callbacks.reconstruction.ReconstructionGrid",
    "lebm.callbacks.revision.RevisionError",
    "lebm.callbacks.samples.SampleGrid",
    "lebm.callbacks.stages.StagePicture",
    "lebm.callbacks.text.SampleSentences",
    "lebm.callbacks.text.SentenceBounds",
    "lebm.callbacks.text.SentenceQuality",
    "lebm.data.arrays.ArrayData",
    "lebm.data.images.ImageData",
    "lebm.data.module.SplitData",
    "lebm.data.synthetic.PlaneData",
    "lebm.data.text.TextData",
    "lebm.estimators.latent_model.LatentModel",
    "lebm.estimators.dual_mcmc.DualMCMCTeaching",
    "lebm.estimators.joint_hierarchical.JointHierarchicalPrior",
    "lebm.estimators.latent_mle.LatentMLE",
    "lebm.estimators.multistage_nce.MultiStageNCE",
    "lebm.estimators.optim.AdamGroups",
    "lebm.estimators.prior_model.PriorModel",
    "lebm.estimators.stages.AdaptiveStages",
    "lebm.estimators.stages.FixedStages",
    "lebm.estimators.stages.StageRule",
    "lebm.metrics.features.DigitFeatures",
    "lebm.metrics.features.FeatureExtractor",
    "lebm.metrics.features.FlatFeatures",
    "lebm.metrics.features.InceptionFeatures",
    "lebm.models.encoders.ConvEncoder",
    "lebm.models.encoders.GaussianEncoder",
    "lebm.models.encoders.MLPEncoder",
    "lebm.models.energies.Energy",
    "lebm.models.energies.MLPEnergy",
    "lebm.models.generators.ConvGenerator",
    "lebm.models.generators.Generator",
    "lebm.models.generators.MLPGenerator",
    "lebm.models.hierarchical.ConcatenatedEnergy",
    "lebm.models.hierarchical.ConvEnergy",
    "lebm.models.hierarchical.LayerEnergies",
    "lebm.models.hierarchical_priors.GaussianChain",
    "lebm.models.hierarchical_priors.GaussianHierarchy",
    "lebm.models.hierarchical_priors.HierarchicalPrior",
    "lebm.models.generators.IdentityGenerator",
    "lebm.models.ladder.BottomLayer",
    "lebm.models.ladder.LadderEncoder",
    "lebm.models.ladder.LadderGenerator",
    "lebm.models.likelihoods.GaussianLikelihood",
    "lebm.models.likelihoods.Likelihood",
    "lebm.models.priors.EnergyPrior",
    "lebm.models.priors.Prior",
    "lebm.models.priors.StandardNormal",
    "lebm.models.ratios.RatioPrior",
    "lebm.models.ratios.RatioProduct",
    "lebm.models.resnet.ResNetEnergy",
    "lebm.models.resnet.ResNetGenerator",
    "lebm.models.text.RecurrentGenerator",
    "lebm.models.text.SequenceGenerator",
    "lebm.models.text.TransformerGenerator",
    "lebm.models.encoders.SentenceEncoder",
    "lebm.models.text_likelihood.CategoricalLikelihood",
    "lebm.samplers.adaptation.Adaptive",
    "lebm.samplers.annealed.AnnealedImportanceSampling",
    "lebm.samplers.base.Sampler",
    "lebm.samplers.chains.PersistentChains",
    "lebm.samplers.importance.SamplingImportanceResampling",
    "lebm.samplers.langevin.Langevin",
    "lebm.samplers.metropolis.HMC",
    "lebm.samplers.metropolis.MALA",
    "lebm.samplers.targets.Masked",
    "lebm.samplers.tempering.ParallelTempering",
]


def components(base: type = Component) -> Iterator[type]:
    """Every component of the package, private and abstract ones too."""
    for module in pkgutil.walk_packages(lebm.__path__, "lebm."):
        if module.name != "lebm.__main__":
            importlib.import_module(module.name)
    waiting = [base]
    while waiting:
        derived = waiting.pop().__subclasses__()
        waiting += derived
        yield from (cls for cls in derived if cls.__module__.startswith("lebm."))


def test_every_component_is_named_by_a_path_that_its_package_offers() -> None:
    paths = {public_path(cls): cls for cls in components()}
    assert len(paths) > 80
    for path, cls in paths.items():
        package, name = path.rsplit(".", 1)
        assert hasattr(sys.modules[package], "__path__"), (
            f"{path}: no package offers it; add it to an __all__"
        )
        assert name in sys.modules[package].__all__
        assert resolve(path) is cls


@pytest.mark.parametrize("path", PATHS_OF_EEFB31C)
def test_a_path_of_an_older_checkpoint_leads_to_the_class_of_that_name(path: str) -> None:
    found = resolve(path)
    assert found.__name__ == path.rsplit(".", 1)[1]
    assert issubclass(found, Component)
    assert public_path(found).startswith(path.rsplit(".", 2)[0] + ".")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lebm.models.text.Nothing", "no module lebm.models.text;"),
        ("lebm.nothing.text.EnergyPrior", "no module lebm.nothing;"),
        ("lebm.models.priors.Nothing", "lebm.models.priors.Nothing is not a class of a trusted package"),
        ("lebm.models.text.frozen", "lebm.models.text.frozen is not a class of a trusted package"),
        ("lebm.models.text.deep.EnergyPrior", "no module lebm.models.text;"),
        ("mine.models.text.EnergyPrior", "outside the trusted packages"),
    ],
)
def test_a_class_that_never_existed_is_refused_in_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve(path)
    assert "\n" not in str(caught.value)


def test_a_class_of_a_user_is_named_by_the_package_that_offers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "our_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from our_package.parts import Shown, Beside\n__all__ = ['Shown', 'Replaced']\nclass Replaced: pass\n"
    )
    (folder / "parts.py").write_text(
        "from lebm.models import MLPEnergy\n"
        + "".join(f"class {name}(MLPEnergy): pass\n" for name in ("Shown", "Beside", "Replaced"))
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = importlib.import_module("our_package.parts")
    try:
        paths = [
            describe(cls(latent_dim=1))["class_path"] for cls in (parts.Shown, parts.Beside, parts.Replaced)
        ]
        assert paths == ["our_package.Shown", "our_package.parts.Beside", "our_package.parts.Replaced"]
        assert resolve("our_package.Shown", trust=["our_package"]) is parts.Shown
    finally:
        for name in ("our_package.parts", "our_package"):
            sys.modules.pop(name, None)
