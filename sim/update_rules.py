"""Update rules for many runs at once, each run with its own step size; one step is a few elementwise operations.

Weights and gradients are (..., m, 1 + d); a step size is a number or a tensor of the leading batch shape. For single
networks use `torch.optim`, whose optimizers take one step size for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from theory.command_line import InputError

Step = Callable[[Tensor, Tensor], None]
"""Changes weights in place, given their gradient, which it may overwrite."""


class Rule(Protocol):
    """An update rule."""

    rotation_equivariant: ClassVar[bool]
    """Whether rotated gradients give rotated steps, so that it may run in the eigenbasis of a sample's moments."""

    def start(self, weights: Tensor) -> Step:
        """A new batch of runs from these weights; what the rule remembers is empty."""
        ...


@dataclass(frozen=True)
class GradientDescent:
    """θ ← θ − η g.

    Attributes:
        lr: step size η.
    """

    lr: float | Tensor
    rotation_equivariant: ClassVar[bool] = True

    def start(self, weights: Tensor) -> Step:
        """See `Rule`."""
        lr = _per_run("lr", self.lr, weights)

        def step(theta: Tensor, g: Tensor) -> None:
            theta.addcmul_(g, lr, value=-1)

        return step


@dataclass(frozen=True)
class Momentum:
    """V ← μ v + (1 − τ) g, from v = g at first; θ ← θ − η v, or η (g + μ v) for Nesterov: as `torch.optim.SGD`.

    Attributes:
        lr: step size η.
        mu: momentum μ in [0, 1).
        dampening: τ in [0, 1).
        nesterov: whether the step looks ahead.
    """

    lr: float | Tensor
    mu: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    rotation_equivariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_fraction("mu", self.mu)
        _require_fraction("dampening", self.dampening)
        if self.dampening and (self.nesterov or not self.mu):
            raise InputError(f"dampening is {self.dampening} without momentum, or with Nesterov's: give 0")

    def start(self, weights: Tensor) -> Step:
        """See `Rule`."""
        lr = _per_run("lr", self.lr, weights)
        average: Tensor | None = None

        def step(theta: Tensor, g: Tensor) -> None:
            nonlocal average
            average = g.clone() if average is None else average.mul_(self.mu).add_(g, alpha=1 - self.dampening)
            theta.addcmul_(g.add_(average, alpha=self.mu) if self.nesterov else average, lr, value=-1)

        return step


@dataclass(frozen=True)
class Adam:
    """θ ← θ − η m̂/(√v̂ + ε) with bias correction: as `torch.optim.Adam`.

    Attributes:
        lr: step size η.
        beta1: decay β₁ of the gradient's moving average, in [0, 1).
        beta2: decay β₂ of the squared gradient's, in [0, 1).
        eps: ε, above 0.
    """

    lr: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    rotation_equivariant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_fraction("beta1", self.beta1)
        _require_fraction("beta2", self.beta2)
        if not 0 < self.eps < math.inf:
            raise InputError(f"eps is {self.eps}: give a finite number above 0")

    def start(self, weights: Tensor) -> Step:
        """See `Rule`."""
        lr = _per_run("lr", self.lr, weights)
        mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
        taken = 0

        def step(theta: Tensor, g: Tensor) -> None:
            nonlocal taken
            taken += 1
            mean.mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            square.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            # √v̂ + ε with v̂ = v/(1 − β₂ᵗ), and m̂ = m/(1 − β₁ᵗ)
            scale = square.sqrt().div_(math.sqrt(1 - self.beta2**taken)).add_(self.eps)
            theta.addcmul_(torch.div(mean, scale, out=scale), lr, value=-1 / (1 - self.beta1**taken))

        return step


@dataclass(frozen=True)
class SignDescent:
    """θ ← θ − η sign(g), with sign(0) = 0.

    Attributes:
        lr: step size η.
    """

    lr: float | Tensor
    rotation_equivariant: ClassVar[bool] = False

    def start(self, weights: Tensor) -> Step:
        """See `Rule`."""
        lr = _per_run("lr", self.lr, weights)

        def step(theta: Tensor, g: Tensor) -> None:
            theta.addcmul_(g.sign_(), lr, value=-1)

        return step


@dataclass(frozen=True)
class SplitSGD:
    """The rule of `sim.optimizers.SplitSGD`: sign steps where |g| > r, steps of dampened momentum elsewhere.

    Attributes:
        lr: step size η of the plain steps.
        sign_lr: step size of the sign steps.
        threshold: r; may be infinite.
        mu: momentum μ in [0, 1).
        dampening: τ in [0, 1).
    """

    lr: float | Tensor
    sign_lr: float | Tensor
    threshold: float | Tensor
    mu: float = 0.9
    dampening: float = 0.9
    rotation_equivariant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_fraction("mu", self.mu)
        _require_fraction("dampening", self.dampening)
        if self.dampening and not self.mu:
            raise InputError(f"dampening is {self.dampening} without momentum: give 0")

    def start(self, weights: Tensor) -> Step:
        """See `Rule`."""
        lr, sign_lr = _per_run("lr", self.lr, weights), _per_run("sign_lr", self.sign_lr, weights)
        threshold = _per_run("threshold", self.threshold, weights, infinite=True)
        average: Tensor | None = None

        def step(theta: Tensor, g: Tensor) -> None:
            nonlocal average
            large = g.abs() > threshold
            signs = torch.where(large, g.sign(), 0.0)
            g.masked_fill_(large, 0.0)
            if self.mu:
                average = g.clone() if average is None else average.mul_(self.mu).add_(g, alpha=1 - self.dampening)
                g.copy_(average).masked_fill_(large, 0.0)
            theta.addcmul_(signs, sign_lr, value=-1).addcmul_(g, lr, value=-1)

        return step


def _per_run(name: str, value: float | Tensor, weights: Tensor, *, infinite: bool = False) -> Tensor:
    """The number of each run, shaped to multiply its weights."""
    tensor = torch.as_tensor(value, dtype=weights.dtype, device=weights.device)
    batch = weights.shape[:-2]
    if tensor.ndim and tensor.shape != batch:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}: give one number, or one a run, {tuple(batch)}")
    # A run with step size 0 stands still, which is a control, not an error.
    good = (tensor >= 0) & (torch.isfinite(tensor) | torch.tensor(infinite))
    if not bool(good.all()):
        raise InputError(f"{name} is {float(tensor[~good].flatten()[0])} in a run: give finite numbers of at least 0")
    return tensor[..., None, None]


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}: give a number from 0 up to, but not including, 1")
