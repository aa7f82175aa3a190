"""Optimisers by name, as part of a run's configuration."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sim.optimizers import SAM, SplitSGD
from theory.command_line import InputError

if TYPE_CHECKING:
    from sim.training import OptimizerFactory

KINDS = ("gd", "momentum", "adam", "split_sgd", "sam")


@dataclass(frozen=True)
class OptimizerChoice:
    """Rule of the steps, without its step size. With minibatches (`Batches`), gd is SGD."""

    kind: Literal["gd", "momentum", "adam", "split_sgd", "sam"] = "gd"
    """gd: gradient descent; momentum: heavy-ball momentum, dampened or not; adam: Adam; split_sgd: `SplitSGD`;
    sam: sharpness-aware minimisation."""
    momentum: float = 0.9
    """μ of momentum and split_sgd, β₁ of adam; sam and gd take none."""
    dampening: float = 0.0
    """τ of momentum and split_sgd, v ← μ v + (1 − τ) g; v begins with g itself, undampened, as in PyTorch."""
    second_momentum: float = 0.999
    """β₂ of adam."""
    epsilon: float = 1e-8
    """ε of adam."""
    sign_lr: float = 1e-3
    """Step size of split_sgd's sign steps."""
    threshold: float | None = None
    """Size of a gradient's coordinate above which split_sgd takes a sign step; it needs one, and
    `sim.optimizers.gradient_quantile` finds it."""
    radius: float = 0.05
    """ρ of sam, the distance to the weights whose gradient it takes."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"optimizer is {self.kind}: give one of {', '.join(KINDS)}")
        for name in ("momentum", "second_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a number from 0 to below 1")
        if not 0 <= self.radius < math.inf:
            raise InputError(f"radius is {self.radius}: give a number of at least 0")
        if self.kind == "split_sgd" and self.threshold is None:
            raise InputError("split_sgd has no threshold: give the size of gradient above which it takes sign steps")
        for name in ("epsilon", "sign_lr", "threshold"):
            value = getattr(self, name)
            if value is not None and (not value >= 0 or (name == "epsilon" and math.isinf(value))):
                raise InputError(f"{name} is {value}: give a number of at least 0")
        if not 0 <= self.dampening <= 1:
            raise InputError(f"dampening is {self.dampening}: give a number from 0 to 1")
        if self.kind in ("momentum", "split_sgd") and self.dampening and not self.momentum:
            raise InputError(
                f"dampening is {self.dampening} without momentum, where there is nothing to dampen: give 0"
            )

    def __call__(self, parameters: list[Tensor], /, *, lr: float) -> torch.optim.Optimizer:
        """The optimiser of some parameters at a step size, as `sim.descend` asks for it."""
        return self.factory()(parameters, lr=lr)

    def factory(self) -> OptimizerFactory:
        """Makes the optimiser of parameters at a step size, for `sim.descend`.

        >>> OptimizerChoice().factory()([torch.nn.Parameter(torch.zeros(1))], lr=0.1).defaults["momentum"]
        0
        """
        if self.kind == "momentum":
            return functools.partial(torch.optim.SGD, momentum=self.momentum, dampening=self.dampening)
        if self.kind == "adam":
            return functools.partial(torch.optim.Adam, betas=(self.momentum, self.second_momentum), eps=self.epsilon)
        if self.kind == "split_sgd":
            assert self.threshold is not None
            return functools.partial(
                SplitSGD,
                sign_lr=self.sign_lr,
                threshold=self.threshold,
                momentum=self.momentum,
                dampening=self.dampening,
            )
        if self.kind == "sam":
            return functools.partial(SAM, radius=self.radius)
        return torch.optim.SGD
