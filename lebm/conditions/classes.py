"""Class conditions: a classifier on latents as a log-probability."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import and_, or_

from torch import Tensor, nn

from lebm.conditions.algebra import Condition, Given


class ClassCondition(Condition):
    r"""A condition on classes: the exact ``log p(y in labels | z)`` of a classifier.

    With one classifier, ``a | b`` is the condition for the union of the labels, ``~a`` the condition for the
    other labels, and ``a & b`` the product of two probabilities, for latents between classes.

    Args:
        classifier: function from latents ``(B, d)`` to logits ``(B, classes)``: a
            :class:`~lebm.models.LatentClassifier`, or ``energy.logits`` of a
            :class:`~lebm.models.ClassEnergy`.
        labels: one class or several classes, from 0.
        classes: number of classes; the number of the classifier if ``None``.

    Raises:
        ValueError: for an unknown label, without labels, or for all labels.

    Example:
        >>> import torch
        >>> from lebm.conditions import ClassCondition
        >>> logits = lambda z: torch.cat([z, -z, torch.zeros_like(z)], dim=1)
        >>> first = ClassCondition(logits, 0, classes=3)
        >>> z = torch.zeros(1, 1)
        >>> first(z).exp(), (~first)(z).exp(), (~first).labels
        (tensor([0.3333]), tensor([0.6667]), (1, 2))
    """

    is_probability = True

    def __init__(
        self, classifier: Callable[[Tensor], Tensor], labels: int | Iterable[int], classes: int | None = None
    ) -> None:
        super().__init__()
        count = getattr(classifier, "classes", None) if classes is None else classes
        if count is None:
            raise ValueError(
                "ClassCondition needs the number of classes, which this classifier does not have"
            )
        wanted = {labels} if isinstance(labels, int) else set(labels)
        if wrong := sorted(wanted - set(range(count))):
            raise ValueError(f"label {wrong[0]}: the classes are 0 to {count - 1}")
        if not 0 < len(wanted) < count:
            raise ValueError(f"{len(wanted)} of {count} classes are not a condition")
        self.classifier = classifier
        self.labels = tuple(sorted(wanted))
        self.classes = int(count)

    def forward(self, z: Tensor) -> Tensor:
        return self.classifier(z).log_softmax(dim=1)[:, list(self.labels)].logsumexp(dim=1)

    def __or__(self, other: Given) -> Condition:
        if not isinstance(other, ClassCondition) or other.classifier is not self.classifier:
            return super().__or__(other)
        return ClassCondition(self.classifier, {*self.labels, *other.labels}, self.classes)

    def __invert__(self) -> Condition:
        return ClassCondition(self.classifier, set(range(self.classes)) - set(self.labels), self.classes)


def parsed(text: str, classifier: nn.Module, names: Sequence[str]) -> Condition:
    """Parse an expression such as ``5``, ``5|8``, ``~3``, ``4&9`` or ``coat|~shirt``.

    ``~`` binds first, then ``&``, then ``|``. Numbers count from 0 unless names are numbers.

    Args:
        text: expression with numbers or names of classes.
        classifier: function from latents to logits.
        names: names of the classes, by number.

    Raises:
        ValueError: with the part that is not a class.

    Example:
        >>> from lebm.conditions import parsed
        >>> parsed("a|b", lambda z: z, ["a", "b", "c"]).labels
        (0, 1)
    """

    def one(word: str) -> Condition:
        word = word.strip()
        if word.startswith("~"):
            return ~one(word[1:])
        if word in names:
            return ClassCondition(classifier, list(names).index(word), len(names))
        numbers = not any(name.isdecimal() for name in names)
        if numbers and word.isdecimal() and int(word) < len(names):
            return ClassCondition(classifier, int(word), len(names))
        raise ValueError(f"{word!r} is not a class; the classes are {', '.join(names)}")

    both = (reduce(and_, map(one, words.split("&"))) for words in text.split("|"))
    return reduce(or_, both)
