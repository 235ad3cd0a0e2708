"""Adapters for networks from outside lebm: any ``nn.Module``, and the autoencoders of diffusers."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from lebm.errors import UserError
from lebm.extras import need
from lebm.models.encoders import GaussianEncoder
from lebm.models.frozen import frozen
from lebm.models.generators import Generator

_POINT = 2 * math.log(0.01)
"""Log-variance of the latents if an encoder returns points."""


class ModuleEncoder(GaussianEncoder):
    """An encoder that wraps any module.

    The module may return latents, which are flattened to ``(B, latent_dim)``; means and log-variances, as one
    tensor or as a pair; a ``torch.distributions.Normal``, independent or not; or an object with ``latents``,
    or with a ``latent_dist`` that has ``mean`` and ``logvar``. Latents alone are the means of Gaussians with
    standard deviation 0.01. A distribution of lebm is returned unchanged.

    Args:
        module: the network.
        latent_dim: number of latent coordinates, at least 1.

    Raises:
        ValueError: if the module returns another number of latents.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lebm.models import ModuleEncoder
        >>> encoder = ModuleEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), latent_dim=4)
        >>> encoder(torch.zeros(3, 1, 8, 8)).mean.shape
        torch.Size([3, 4])
    """

    def __init__(self, module: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.module, self.latent_dim = module, latent_dim

    def forward(self, x: Tensor) -> Any:
        made = self.module(x)
        if hasattr(made, "rsample") and not isinstance(made, Distribution):
            return made
        return self._posterior(*_gaussian(made, self.latent_dim))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _gaussian(self.module(x), self.latent_dim)


class ModuleAutoencoder(Generator):
    """A generator made of a module with ``encode`` and ``decode``, which brings its own encoder.

    An inference without an encoder, such as :class:`~lebm.inference.Frozen`, uses the encoder of the module.
    Latents are flattened and standardised, so that encoded data have mean 0 and variance 1 in each channel.
    Means and scales are measured on the first training batch, or by :meth:`measure`, and stored in the
    checkpoint.

    Args:
        module: the autoencoder. ``encode`` returns one of the forms that :class:`ModuleEncoder` lists, and
            ``decode`` a tensor or an object with a tensor ``sample``.
        out_shape: shape of one observation, such as ``[3, 64, 64]``.
        latent_shape: shape of one latent, channels first; measured by a pass if ``None``. It is required if
            ``encode`` returns means and log-variances in one tensor.
        trains: whether the module, encoder and decoder, is trained as the network ``generator``, which sets
            ``requires_grad`` of its parameters.

    Raises:
        ValueError: if ``encode`` or ``decode`` returns something else, or observations of another shape.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lebm.models import ModuleAutoencoder
        >>> class Halves(nn.Module):
        ...     def encode(self, x):
        ...         return nn.functional.avg_pool2d(x, 2)
        ...     def decode(self, z):
        ...         return nn.functional.interpolate(z, scale_factor=2)
        >>> autoencoder = ModuleAutoencoder(Halves(), out_shape=[1, 8, 8])
        >>> autoencoder.latent_shape, autoencoder(torch.zeros(3, 16)).shape
        ((1, 4, 4), torch.Size([3, 1, 8, 8]))
    """

    module: Any
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        module: nn.Module,
        out_shape: Sequence[int],
        latent_shape: Sequence[int] | None = None,
        trains: bool = False,
    ) -> None:
        super().__init__()
        self.module = module.requires_grad_(trains)
        self.out_shape = tuple(out_shape)
        if latent_shape is None:
            anchor = next(module.parameters(), torch.zeros(()))
            with torch.no_grad(), frozen(module):
                mean = _moments(self.module.encode(anchor.new_zeros(1, *out_shape)))[0]
                shape = tuple(_tensor(self.module.decode(torch.zeros_like(mean))).shape)
            if shape != (1, *out_shape):
                raise ValueError(
                    f"decode gives the shape {shape}, not {(1, *out_shape)}; change out_shape, or give the"
                    f" latent_shape, for which encode gives {tuple(mean.shape[1:])}"
                )
            latent_shape = mean.shape[1:]
        self.latent_shape = tuple(latent_shape)
        self.latent_dim = math.prod(self.latent_shape)
        each = (self.latent_shape[0], *[1] * (len(self.latent_shape) - 1))
        self.register_buffer("shift", torch.zeros(each))
        self.register_buffer("scale", torch.ones(each))
        self.measured = False

    def forward(self, z: Tensor) -> Tensor:
        own = z.unflatten(1, self.latent_shape) * self.scale + self.shift
        return _tensor(self.module.decode(own.to(self._precision(own)))).to(z.dtype)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return means and log-variances of the module for ``x: (B, *out_shape)``; ``None`` for points."""
        found = _moments(self.module.encode(x.to(self._precision(x))), self.latent_dim)
        return found[0].to(x.dtype), None if found[1] is None else found[1].to(x.dtype)

    def _precision(self, like: Tensor) -> torch.dtype:
        return next(self.module.parameters(), like).dtype

    def mirror(self) -> GaussianEncoder:
        """Return the encoder of this module, in the same units."""
        return OwnEncoder(self)

    @torch.no_grad()
    def measure(self, x: Tensor) -> None:
        """Measure the units of the latents on ``x: (N, *out_shape)``, unless they are known."""
        if self.measured:
            return
        with frozen(self.module):
            moments = self.moments(x)
        mean, *log_variance = (
            part.unflatten(1, self.latent_shape).transpose(0, 1).flatten(1)
            for part in moments
            if part is not None
        )
        if mean.shape[1] < 2:
            raise UserError("the units of the latents need a first batch of at least two rows")
        variance = mean.var(dim=1) + sum(part.exp().mean(dim=1) for part in log_variance)
        self.shift.copy_(mean.mean(dim=1).view_as(self.shift))
        self.scale.copy_(variance.sqrt().clamp_min(1e-6).view_as(self.scale))
        self.measured = True

    def get_extra_state(self) -> dict[str, Any]:
        return {"measured": self.measured}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.measured = state["measured"]


class OwnEncoder(GaussianEncoder):
    """The encoder returned by :meth:`ModuleAutoencoder.mirror`; the autoencoder holds its weights.

    Args:
        autoencoder: the autoencoder.

    Example:
        >>> import torch
        >>> from lebm.models import VectorUnits
        >>> VectorUnits(2).mirror()(torch.zeros(3, 2)).mean.shape
        torch.Size([3, 2])
    """

    def __init__(self, autoencoder: ModuleAutoencoder) -> None:
        super().__init__()
        object.__setattr__(self, "_autoencoder", autoencoder)  # its parameters count once
        self.latent_dim, self.in_shape = autoencoder.latent_dim, autoencoder.out_shape

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        own: ModuleAutoencoder = vars(self)["_autoencoder"]
        mean, log_variance = own.moments(x)
        mean = ((mean.unflatten(1, own.latent_shape) - own.shift) / own.scale).flatten(1)
        if log_variance is None:
            return mean, torch.full_like(mean, _POINT)
        log_variance = log_variance.unflatten(1, own.latent_shape) - 2 * own.scale.log()
        return mean, log_variance.flatten(1)


class VectorUnits(ModuleAutoencoder):
    """An identity autoencoder of vectors, in units in which each coordinate has mean 0 and variance 1.

    A prior on these latents is a density of embeddings, or of the latents of another model.

    Args:
        latent_dim: number of coordinates of a vector, at least 1.

    Example:
        >>> import torch
        >>> from lebm.models import VectorUnits
        >>> units = VectorUnits(2)
        >>> units.measure(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
        >>> units.shift, units(torch.zeros(1, 2))
        (tensor([ 2., 20.]), tensor([[ 2., 20.]]))
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(_Same(), [latent_dim], [latent_dim])


class _Same(nn.Module):
    def encode(self, x: Tensor) -> Tensor:
        return x

    decode = encode


class DiffusersAutoencoder(ModuleAutoencoder):
    """An ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers; requires the extra ``lebm[diffusers]``.

    Unless it is trained, checkpoints do not contain its weights, so the folder must hold the same weights
    when a checkpoint is opened.

    Args:
        path: folder written by ``save_pretrained``, or name of a repository on the Hub, such as
            ``stabilityai/sd-vae-ft-mse``, which is downloaded. Only safetensors are read.
        image_size: height and width of the images; the ``sample_size`` of the autoencoder if ``None``.
        revision: branch, tag or commit on the Hub.
        subfolder: folder inside ``path``, such as ``vae`` in a pipeline.
        trains: whether it is fine-tuned, as the network ``generator``.

    Raises:
        UserError: if ``path`` holds no autoencoder, or other weights than in training.
        MissingExtraError: if diffusers is not installed.

    Example:
        The notebook ``docs/tutorials/your_autoencoder.ipynb`` trains a prior on one.

        >>> import inspect
        >>> from lebm.models import DiffusersAutoencoder
        >>> list(inspect.signature(DiffusersAutoencoder).parameters)
        ['path', 'image_size', 'revision', 'subfolder', 'trains']
    """

    def __init__(
        self,
        path: str,
        image_size: int | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        trains: bool = False,
    ) -> None:
        need("diffusers", type(self).__name__)
        with torch.device("cpu"):  # the weights are needed even if the model is built on the meta device
            module = _of_diffusers(path, revision=revision, subfolder=subfolder)
        config: Any = module.config
        size = image_size or getattr(config, "sample_size", None)
        if size is None:
            raise UserError(f"{path}: this autoencoder takes images of any size; give an image_size")
        side = size // 2 ** (len(config.block_out_channels) - 1)
        latent_shape = [config.latent_channels, side, side]
        super().__init__(module, [config.in_channels, size, size], latent_shape, trains)
        self.path, self.digest = path, None if trains else _digest(module)
        if not trains:
            self.register_state_dict_post_hook(_leave_out)
            self.register_load_state_dict_pre_hook(_put_in)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "digest": self.digest}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        if state["digest"] != self.digest:
            raise UserError(f"{self.path} holds other weights than in training")


def _of_diffusers(path: str, **place: str | None) -> nn.Module:
    import diffusers

    kinds = ("AutoencoderKL", "AutoencoderTiny")
    try:
        name = diffusers.AutoencoderKL.load_config(path, **place).get("_class_name")
        if name in kinds:
            weights = {"use_safetensors": True, "low_cpu_mem_usage": False}
            return getattr(diffusers, name).from_pretrained(path, **weights, **place)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no autoencoder of diffusers ({reason})") from error
    raise UserError(f"{path}: holds {name}, not {' or '.join(kinds)}")


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _leave_out(own: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}module.")]:
        del state[name]


def _put_in(own: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state |= {f"{prefix}module.{name}": value for name, value in own.module.state_dict().items()}  # type: ignore


def _moments(made: Any, latent_dim: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Return means ``(B, latent_dim)`` and log-variances (``None`` for points) of the output of an encoder.

    Without a ``latent_dim`` the shape of the latents is kept, and one tensor holds points.
    """
    if isinstance(made, tuple | list) and len(made) == 1:
        made = made[0]
    made = getattr(made, "latents", getattr(made, "latent_dist", made))
    made = made.base_dist if isinstance(made, Independent) else made
    if isinstance(made, Normal):
        made = made.mean, 2 * made.stddev.log()
    elif hasattr(made, "logvar"):
        made = made.mean, made.logvar
    if not isinstance(made, Tensor) and not (isinstance(made, tuple | list) and len(made) == 2):
        parts = f" of {len(made)}" if isinstance(made, tuple | list) else ""
        raise ValueError(
            f"the encoder returns a {type(made).__name__}{parts}; it must return latents, or their means and"
            " log-variances"
        )
    if isinstance(made, tuple | list):
        mean, log_variance = made
    elif latent_dim is not None and made[0].numel() == 2 * latent_dim:
        mean, log_variance = made.chunk(2, dim=1)
    else:
        mean, log_variance = made, None
    if latent_dim is None:
        return mean, log_variance
    if mean[0].numel() != latent_dim:
        raise ValueError(f"the encoder gives {mean[0].numel()} numbers, not {latent_dim} latent coordinates")
    return mean.flatten(1), None if log_variance is None else log_variance.flatten(1)


def _tensor(made: Any) -> Tensor:
    """Return the output of a decoder, which may be an object or a tuple."""
    return made if isinstance(made, Tensor) else made[0] if isinstance(made, tuple) else made.sample


def _gaussian(made: Any, latent_dim: int) -> tuple[Tensor, Tensor]:
    mean, log_variance = _moments(made, latent_dim)
    return mean, torch.full_like(mean, _POINT) if log_variance is None else log_variance
