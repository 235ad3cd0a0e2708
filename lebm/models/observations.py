"""Checks of observations: the shape of one observation and the range of its values."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from lebm.errors import UserError, UserNotice
from lebm.models.likelihoods import Likelihood

Answer = TypeVar("Answer", bound=Callable[..., Any])


def event_shape(likelihood: Likelihood | None) -> tuple[int, ...] | None:
    """Return the shape of one observation, ``(C, H, W)`` or ``(D,)``; ``None`` if not fixed (sentences)."""
    own = likelihood if hasattr(likelihood, "out_shape") else getattr(likelihood, "generator", None)
    shape = getattr(own, "out_shape", None)
    return None if shape is None else tuple(shape)


def as_dictionary(batch: Any) -> Any:
    """Convert a batch of a plain loader to ``{"x": ..., "label": ...}``; return any other batch as it is.

    Args:
        batch: a tensor ``(B, *event)``; or a tuple or list that begins with such a tensor. A second tensor
            ``(B,)`` of integers holds the labels.
    """
    if isinstance(batch, Tensor):
        return {"x": batch}
    if not isinstance(batch, tuple | list) or not all(isinstance(part, Tensor) for part in batch[:2]):
        return batch
    x, *rest = batch
    is_label = bool(rest) and rest[0].shape == x.shape[:1] and not rest[0].is_floating_point()
    return {"x": x, "label": rest[0]} if is_label else {"x": x}


def rows_of(batch: Any) -> Tensor:
    """Return the data of a batch.

    Args:
        batch: a dictionary with ``"x"``, ``(B, *event)``, or a batch that :func:`as_dictionary` converts.

    Raises:
        UserError: for another batch.
    """
    batch = as_dictionary(batch)
    if not isinstance(batch, Mapping) or "x" not in batch:
        given = f"a {type(batch).__name__}"
        if isinstance(batch, Mapping):
            given = f"a dictionary with {', '.join(map(repr, batch)) or 'nothing'}"
        raise UserError(
            "a batch must be a dictionary {'x': images in [-1, 1], 'index': row numbers}, not"
            f" {given}; lebm.data.ArrayData.of({{'train': x}}) makes such batches of a tensor"
        )
    return batch["x"]


def check_rows(x: Tensor, shape: tuple[int, ...] | None) -> None:
    """Reject observations of another shape, or integers in place of values in [-1, 1].

    No value of ``x: (B, *shape)`` is read, so training does not wait for the device.

    Raises:
        UserError: with the expected shape or dtype; never if ``shape`` is ``None``.
    """
    if shape is None:
        return
    found, wanted = tuple(x.shape), ", ".join(map(str, shape))
    if found[1:] != shape:
        hint = ""
        if found == shape:
            hint = "; x[None] is a batch of one"
        elif found[1:] == shape[1:] and shape[0] == 1:
            hint = "; x.unsqueeze(1) adds the channel"
        elif len(found) == 4:
            hint = "; change image_size or channels of the data, or out_shape of the generator"
        elif len(found) == 2 and len(shape) == 1:
            hint = f"; for these data, set latent_dim {found[1]}"
        raise UserError(f"x has the shape {found}, but this model takes (B, {wanted}){hint}")
    if not x.is_floating_point():
        hint = "; lebm.data.to_unit_range(x) scales bytes to [-1, 1]" if len(shape) == 3 else ""
        raise UserError(f"x holds {str(x.dtype).removeprefix('torch.')}, but this model takes numbers{hint}")


def check_range(x: Tensor, shape: tuple[int, ...] | None) -> None:
    """Reject NaN, infinity and images far outside [-1, 1]; warn of images that look like [0, 1].

    Chains on images may leave [-1, 1] a little, so only absolute values above 10 are rejected. A batch
    without negative values may be correct, so it gives a warning. Only images, ``(C, H, W)``, have a range.

    Raises:
        UserError: with the row of the first value that is not finite, or with the range of ``x``.
    """
    if shape is None or not x.numel():
        return
    low, high = (float(end) for end in x.detach().aminmax())  # NaN if any value is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        broken = ~x.detach().isfinite().flatten(1).all(dim=1)
        first = int(broken.nonzero()[0])
        raise UserError(
            f"x has NaN or infinite values in {int(broken.sum())} of {len(x)} rows, first in row {first};"
            " leave these rows out or fix them"
        )
    if len(shape) != 3:
        return
    if max(-low, high) > 10:
        raise UserError(
            f"x reaches from {low:.4g} to {high:.4g}, but this model takes images in [-1, 1];"
            " x / 127.5 - 1 scales images in [0, 255]"
        )
    if 0 <= low < high:
        warnings.warn(
            f"x reaches from {low:.4g} to {high:.4g}, never below 0; this model takes images in [-1, 1],"
            " so if these are in [0, 1], give 2 * x - 1",
            UserNotice,
            stacklevel=4,
        )


def checked(answer: Answer) -> Answer:
    """Decorate a method ``answer(self, x, ...)`` of a model to call ``self.check_input(x)`` on its input."""

    @functools.wraps(answer)
    def call(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return answer(self, self.check_input(x), *args, **kwargs)

    return call  # type: ignore[return-value]
