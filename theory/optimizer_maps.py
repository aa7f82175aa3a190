"""Momentum, Adam and sign descent as maps on the two-layer model, and where each turns unstable (T13).

A coordinate with curvature λ and gradient λs obeys a linear recurrence whose characteristic polynomial is
z² + a₁ z + a₀. It turns unstable where z = −1 is a root:

    heavy ball    a₁ = η(1−τ)λ − μ − 1,       a₀ = μ            λ* = 2(1+μ)/(η(1−τ))
    Nesterov      a₁ = (1+μ)(ηλ − 1),         a₀ = μ(1 − ηλ)    λ* = 2(1+μ)/(η(1+2μ))
    Adam          a₁ = η(1−β₁)λ/P − β₁ − 1,   a₀ = β₁           (λ/P)* = 2(1+β₁)/(η(1−β₁))

with μ the momentum, τ the dampening and P = √v̂ + ε Adam's preconditioner, held fixed. Conventions are PyTorch's
(`torch.optim.SGD`, `torch.optim.Adam`). Source of the thresholds: Cohen et al. 2021 (arXiv 2103.00065), 2022
(arXiv 2207.14484); derived here in T13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.descent import descend_vectors
from theory.model import Model, State, vector_gradient
from theory.symbolic import Array, VectorMap
from theory.trajectory import Trajectory


@dataclass(frozen=True)
class Momentum:
    """Momentum as in `torch.optim.SGD`: v = g at first, then v = μv + (1−τ)g; θ −= ηv, or η(g + μv) for Nesterov.

    Attributes:
        lr: step size η.
        mu: momentum μ in [0, 1).
        dampening: τ in [0, 1); PyTorch ignores it without momentum, here μ = 0 then takes none.
        nesterov: whether the step looks ahead; PyTorch then allows no dampening.

    Raises:
        InputError: a number is out of its range.
    """

    lr: float
    mu: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        _require_fraction("mu", self.mu)
        _require_fraction("dampening", self.dampening)
        if self.dampening and (self.nesterov or not self.mu):
            kind = "with Nesterov momentum" if self.nesterov else "without momentum"
            raise InputError(f"dampening is {self.dampening} {kind}: give 0")

    def displacement(self) -> VectorMap:
        """A new run's gradient → displacement; it remembers the buffer v."""
        buffer: Array | None = None

        def step(g: Array) -> Array:
            nonlocal buffer
            # v₁ = g₁;  v_t = μ v_{t−1} + (1 − τ) g_t
            buffer = g if buffer is None else self.mu * buffer + (1 - self.dampening) * g
            return self.lr * (g + self.mu * buffer if self.nesterov else buffer)

        return step

    def characteristic(self, curvature: npt.ArrayLike) -> tuple[Array, Array]:
        """Coefficients a₁, a₀ of the recurrence's polynomial z² + a₁ z + a₀ at curvature λ."""
        x = self.lr * np.asarray(curvature, dtype=np.float64)
        if self.nesterov:
            return np.asarray((1 + self.mu) * (x - 1)), np.asarray(self.mu * (1 - x))
        return np.asarray((1 - self.dampening) * x - self.mu - 1), np.full_like(x, self.mu)

    @property
    def threshold(self) -> float:
        """Curvature λ* above which a coordinate grows.

        >>> round(Momentum(lr=0.1, mu=0.9).threshold, 9)  # 2 (1 + μ) / η
        38.0
        """
        slack = 1 + 2 * self.mu if self.nesterov else 1 - self.dampening
        return 2 * (1 + self.mu) / (self.lr * slack)


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction as in `torch.optim.Adam`: θ −= η m̂/(√v̂ + ε).

    Attributes:
        lr: step size η.
        beta1: decay β₁ of the gradient's moving average m, in [0, 1).
        beta2: decay β₂ of the squared gradient's moving average v, in [0, 1).
        eps: ε, added to √v̂.

    Raises:
        InputError: a number is out of its range.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_positive("eps", self.eps)
        _require_fraction("beta1", self.beta1)
        _require_fraction("beta2", self.beta2)

    def displacement(self) -> VectorMap:
        """A new run's gradient → displacement; it remembers the two moving averages."""
        mean, precondition = _debiased_average(self.beta1), self.preconditioning()
        return lambda g: self.lr * mean(g) / precondition(g)

    def preconditioning(self) -> VectorMap:
        """A new run's gradient → preconditioner P = √v̂ + ε."""
        square = _debiased_average(self.beta2)
        return lambda g: np.asarray(np.sqrt(square(g * g)) + self.eps)

    def characteristic(self, curvature: npt.ArrayLike) -> tuple[Array, Array]:
        """Coefficients a₁, a₀ at *preconditioned* curvature λ/P, with P held fixed and the bias correction over."""
        x = self.lr * np.asarray(curvature, dtype=np.float64)
        return np.asarray((1 - self.beta1) * x - self.beta1 - 1), np.full_like(x, self.beta1)

    @property
    def threshold(self) -> float:
        """Preconditioned curvature (λ/P)* above which a coordinate grows.

        >>> round(Adam(lr=1.0, beta1=0.9).threshold, 9)  # (2 + 2β₁) / ((1 − β₁) η)
        38.0
        """
        return 2 * (1 + self.beta1) / (self.lr * (1 - self.beta1))

    def two_cycle(self, curvature: npt.ArrayLike) -> Array:
        """Half-width a of Adam's two-cycle s = ±a on a coordinate of fixed curvature; 0 where there is none.

        On s_t = (−1)ᵗ a every √v̂ is λa, so the coordinate sits at its own threshold, λ/(λa + ε) = (λ/P)*:

            a = η(1−β₁)/(2(1+β₁)) − ε/λ,  which exists iff λ > ε (λ/P)*.

        Up to ε it does not depend on the curvature.

        >>> round(float(Adam(lr=0.38).two_cycle(1e6)), 6)  # η/38
        0.01
        """
        lam = np.asarray(curvature, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return np.asarray(np.maximum(1 / self.threshold - self.eps / lam, 0.0))


@dataclass(frozen=True)
class SignDescent:
    """Sign descent θ −= η sign(g), with sign(0) = 0.

    No curvature is stable: a coordinate moves by η whatever its curvature, and ends in `two_cycle`.

    Attributes:
        lr: step size η.

    Raises:
        InputError: lr is not positive.
    """

    lr: float

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def displacement(self) -> VectorMap:
        """Gradient → displacement; nothing is remembered."""
        return lambda g: self.lr * np.sign(g)

    def two_cycle(self, s: npt.ArrayLike) -> tuple[Array, Array]:
        """The two values between which a coordinate that starts at s ends: r and r − η, r = s mod η.

        Hypothesis: its curvature stays positive. The gap is η whatever the curvature. If s is a multiple of η it
        reaches 0 and stays there (in exact arithmetic), and both values are 0.

        >>> upper, lower = SignDescent(lr=0.5).two_cycle(1.625)
        >>> float(upper), float(lower)
        (0.125, -0.375)
        """
        upper = np.mod(np.asarray(s, dtype=np.float64), self.lr)
        return np.asarray(upper), np.asarray(np.where(upper == 0, 0.0, upper - self.lr))


Rule = Momentum | Adam | SignDescent


def descend_with(model: Model, start: State, rule: Rule, steps: int) -> Trajectory:
    """Descends the population loss by another rule than plain descent; `gradient_descent` is the plain one.

    Args:
        model: the model.
        start: weights at step 0; the rule's memory starts empty.
        rule: the optimizer.
        steps: number of steps.

    Returns:
        The weights at steps 0…steps, cut before the first that is not finite; time is step × learning rate.

    Raises:
        InputError: steps is not positive.

    >>> m = Model(alpha=[1.0], beta=[0.0], covariance=[1.0])
    >>> run = descend_with(m, State(1.0, [0.0], [0.5]), SignDescent(lr=0.25), steps=3)
    >>> run.state.s[:, 0]
    array([0.5 , 0.25, 0.  , 0.  ])
    """
    return descend_vectors(vector_gradient(model), start, rule.lr, steps, rule.displacement())


def growth_per_step(rule: Momentum | Adam, curvature: npt.ArrayLike) -> Array:
    """Factor by which a coordinate of (for Adam: preconditioned) curvature λ grows or shrinks a step in the long run.

    It is the spectral radius of z² + a₁ z + a₀; the coordinate is stable where it is below 1.

    >>> round(float(growth_per_step(Momentum(lr=0.1, mu=0.9), 38.0)), 9)
    1.0
    """
    a1, a0 = rule.characteristic(curvature)
    discriminant = a1**2 - 4 * a0
    # Two complex roots have modulus √a₀; of two real ones the larger has modulus (|a₁| + √(a₁² − 4a₀))/2.
    real = (np.abs(a1) + np.sqrt(np.maximum(discriminant, 0.0))) / 2
    return np.asarray(np.where(discriminant >= 0, real, np.sqrt(np.maximum(a0, 0.0))))


def preconditioner(model: Model, run: Trajectory, rule: Adam) -> Array:
    """(n, 1 + d1 + J) Adam's preconditioner P = √v̂ + ε, as it stood when each state of a run was left."""
    precondition = rule.preconditioning()
    return np.stack([precondition(g) for g in vector_gradient(model)(run.state.vector)])


def _debiased_average(decay: float) -> Callable[[Array], Array]:
    """x_t → m_t/(1 − βᵗ) with m_t = β m_{t−1} + (1 − β) x_t and m_0 = 0."""
    average: Array | float = 0.0
    weight = 0.0

    def update(x: Array) -> Array:
        nonlocal average, weight
        average = decay * average + (1 - decay) * x
        weight = decay * weight + (1 - decay)  # 1 − βᵗ
        return np.asarray(average / weight)

    return update


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}: give a number from 0 up to, but not including, 1")
