"""The subject of a suite: a model with its data."""

from dataclasses import dataclass, field
from typing import Any

from lebm.data.text import TextData
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.data import RunImages
from lebm.evaluation.settings import Settings

__all__ = ["SentenceSubject", "Settings", "Subject"]


@dataclass
class Subject:
    """A model under evaluation and its data.

    Attributes:
        model: model in evaluation mode, on its device.
        images: splits of its data.
        memory: results shared by suites, such as the scores of the test split.

    Example:
        >>> import lebm
        >>> from lebm.evaluation.context import Subject
        >>> from lebm.evaluation.data import RunImages
        >>> model, data = lebm.from_recipe("quickstart")
        >>> Subject(model.eval(), RunImages.of(data)).images.test.image_shape
        (1, 28, 28)
    """

    model: LatentModel
    images: RunImages
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass
class SentenceSubject:
    """A model of sentences and its data.

    Attributes:
        model: model in evaluation mode, on its device.
        data: data module after ``setup``.

    Example:
        >>> import lebm
        >>> from lebm.evaluation.context import SentenceSubject
        >>> model, data = lebm.from_recipe("latent_mle/text_small")
        >>> data.setup()
        >>> SentenceSubject(model.eval(), data).data.path
        'embedded:verses'
    """

    model: LatentModel
    data: TextData
