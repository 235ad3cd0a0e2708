"""An optimiser with one parameter group per network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lebm.component import Component

PerNetwork = float | Mapping[str, float]


class AdamGroups(Component):
    """Adam over named networks, each with its own learning rate, weight decay and gradient-norm limit.

    A single optimiser keeps Lightning's automatic optimisation and so the usual meaning of accumulation,
    precision, EMA and ``max_steps``. Adam acts on each parameter separately, so the result equals one Adam
    per network.

    Args:
        lr: learning rate of every network of the method, positive, for example ``{"generator": 1e-4,
            "energy": 2e-5}``.
        betas: Adam's moment decays, each in [0, 1).
        weight_decay: L2 penalty per network, 0 where absent.
        decoupled_weight_decay: whether the weight decay acts on the weights directly, as in AdamW, and not on
            their gradients (default: False).
        max_grad_norm: limit on the gradient norm per network; unlimited where absent.
        lr_decay: factor on the learning rate after each epoch, in (0, 1]; or one factor per network, 1 where
            absent.
        full_rate_epochs: number of epochs at the full learning rate, at least 1, or a share of the epochs of
            the run below 1; or one number per network, 1 where absent. It is 2 for released scripts that call
            their schedule at the end of an epoch with the number of that epoch. An energy that waits for its
            base keeps the full rate until it begins to learn.

    Raises:
        ValueError: for an argument out of range, or a number in place of a mapping.

    Example:
        >>> from lebm.estimators import AdamGroups
        >>> from torch import nn
        >>> settings = AdamGroups({"generator": 1e-3, "energy": 1e-4}, max_grad_norm={"energy": 1.0})
        >>> networks = {"generator": nn.Linear(2, 4), "energy": nn.Linear(2, 1)}
        >>> optimizer, schedule = settings.build(networks, fused=False)
        >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
        [('generator', 0.001), ('energy', 0.0001)]
    """

    def __init__(
        self,
        lr: Mapping[str, float],
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: Mapping[str, float] | None = None,
        max_grad_norm: Mapping[str, float] | None = None,
        lr_decay: PerNetwork = 1.0,
        full_rate_epochs: PerNetwork = 1,
        decoupled_weight_decay: bool = False,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm}.items():
            if not isinstance(value, Mapping) and (name == "lr" or value is not None):
                raise ValueError(
                    f'{name} maps names of networks to numbers, for example {{"generator": 1e-4, "energy":'
                    f" 2e-5}}, not {value!r}"
                )
        for name, value in {"lr": lr, "max_grad_norm": max_grad_norm}.items():
            if not all(number > 0 for number in (value or {}).values()):
                raise ValueError(f"{name} must be positive, not {value}")
        if not all(number >= 0 for number in (weight_decay or {}).values()):
            raise ValueError(f"weight_decay must not be negative, but is {weight_decay}")
        factors = lr_decay.values() if isinstance(lr_decay, Mapping) else [lr_decay]
        if not all(0 < factor <= 1 for factor in factors):
            raise ValueError(f"lr_decay must be in (0, 1], not {lr_decay}")
        self.lr = dict(lr)
        self.betas = (float(betas[0]), float(betas[1]))
        self.weight_decay = dict(weight_decay or {})
        self.decoupled_weight_decay = decoupled_weight_decay
        self.max_grad_norm = dict(max_grad_norm or {})
        self.lr_decay, self.full_rate_epochs = lr_decay, full_rate_epochs

    def check(self, networks: Mapping[str, nn.Module]) -> None:
        """Reject settings of unknown networks, and networks without a learning rate."""
        for setting in ("lr", "weight_decay", "max_grad_norm", "lr_decay", "full_rate_epochs"):
            value = getattr(self, setting)
            for name in value if isinstance(value, Mapping) else ():
                if name not in networks:
                    raise ValueError(
                        f"optimizer.{setting}: this method has no network {name!r}; it has"
                        f" {', '.join(sorted(networks))}"
                    )
        for name in networks:
            if name not in self.lr:
                raise ValueError(f"optimizer.lr: give a learning rate for {name!r}")

    def build(
        self, networks: Mapping[str, nn.Module], fused: bool, epochs: int | None = None
    ) -> tuple[Adam | AdamW, LRScheduler]:
        """Return the optimiser and its per-epoch schedule for a run of ``epochs`` epochs."""
        self.check(networks)
        groups = [
            {
                "params": list(network.parameters()),
                "name": name,
                "lr": self.lr[name],
                "weight_decay": self.weight_decay.get(name, 0.0),
            }
            for name, network in networks.items()
        ]
        optimizer = (AdamW if self.decoupled_weight_decay else Adam)(groups, betas=self.betas, fused=fused)
        full = {name: _of(self.full_rate_epochs, {"name": name}) for name in networks}
        if min(full.values(), default=1) < 1:
            if epochs is None or epochs < 1:
                raise ValueError(f"full_rate_epochs {self.full_rate_epochs}: the run needs max_epochs")
            full = {name: round(share * epochs) if share < 1 else share for name, share in full.items()}
        return optimizer, _Decay(optimizer, self.lr_decay, full)

    def renew(self, optimizer: Optimizer) -> None:
        """Give an optimiser from a checkpoint the settings of this object; the decay so far remains."""
        for group in optimizer.param_groups:
            rate = self.lr[group["name"]]
            group["lr"] *= rate / group.get("initial_lr", rate)
            group |= {"initial_lr": rate, "weight_decay": self.weight_decay.get(group["name"], 0.0)}
            group |= {"betas": self.betas, "decoupled_weight_decay": self.decoupled_weight_decay}

    def clip(self, optimizer: Optimizer, default: float | None = None) -> None:
        """Limit each group's gradient norm by its own setting, or by a positive ``default`` without one."""
        for group in optimizer.param_groups:
            limit = self.max_grad_norm.get(group["name"], default)
            if limit is not None and limit > 0:
                torch.nn.utils.clip_grad_norm_(group["params"], limit)


class _Decay(LRScheduler):
    """The factor ``lr_decay ** max(0, epoch - full_rate_epochs + 1)`` of each group, for epochs from 0."""

    def __init__(self, optimizer: Optimizer, decay: PerNetwork, full_rate_epochs: PerNetwork) -> None:
        self.decay, self.full_rate_epochs = decay, full_rate_epochs
        super().__init__(optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = {"decay": self.decay, "full_rate_epochs": self.full_rate_epochs}  # of the resumed run
        super().load_state_dict(state_dict | own)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        return [
            group["lr"]
            * (_of(self.decay, group) if self.last_epoch >= _of(self.full_rate_epochs, group) else 1)
            for group in self.optimizer.param_groups
        ]


def _of(setting: PerNetwork, group: Mapping[str, Any]) -> float:
    """Return a setting of one network; 1 if absent."""
    return setting.get(group["name"], 1) if isinstance(setting, Mapping) else setting
