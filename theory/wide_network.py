"""The network of width m, f = aᵀ(W x + S uᵀx_o): what of the scalar model survives (T14).

The loss sees only the effective weights (Wᵀa, Sᵀa), so it is the scalar model's at c = 1. With V = (W, S),
w = Vᵀa and g = ∂_w L, that is g_i = λ_i (w_i − τ_i), the gradients are ∂_a L = V g and ∂_V L = a gᵀ. From a rank-one
start V = â (b, s)ᵀ, a = c â the network is the scalar model exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

from theory.command_line import InputError, require_positive
from theory.descent import iterate
from theory.model import Model, State, gradient, loss
from theory.symbolic import Array, VectorMap


@dataclass(frozen=True)
class WideState:
    """Weights of a network of width m, at one time or along any leading axes.

    Attributes:
        a: (..., m) last layer.
        W: (..., m, d1) first layer on the ordinary features.
        S: (..., m, J) first layer on the opposing features, along u.
    """

    a: Array
    W: Array
    S: Array

    def __post_init__(self) -> None:
        for name in ("a", "W", "S"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if not self.a.shape == self.W.shape[:-1] == self.S.shape[:-1]:
            raise InputError(
                f"a, W, S have shapes {self.a.shape}, {self.W.shape}, {self.S.shape}: give (m,), (m, d1), (m, J)"
            )

    @property
    def first_layer(self) -> Array:
        """(..., m, d1 + J) the first layer V = (W, S)."""
        return np.concatenate([self.W, self.S], axis=-1)

    @property
    def effective(self) -> State:
        """The scalar model's state that gives the same function: c = 1, b = Wᵀa, s = Sᵀa."""
        one = np.ones(self.a.shape[:-1])
        return State(one, _contract(self.a, self.W), _contract(self.a, self.S))

    @property
    def vector(self) -> Array:
        """(..., m (1 + d1 + J)) all weights as one vector."""
        flat = self.first_layer.reshape(*self.a.shape[:-1], -1)
        return np.concatenate([self.a, flat], axis=-1)

    @classmethod
    def from_vector(cls, vector: Array, m: int, d1: int) -> WideState:
        """Undoes `vector`."""
        first = vector[..., m:].reshape(*vector.shape[:-1], m, -1)
        return cls(vector[..., :m], first[..., :d1], first[..., d1:])

    def at(self, index: int) -> WideState:
        """The weights at one index of the first axis."""
        return WideState(self.a[index], self.W[index], self.S[index])


def rank_one_state(state: State, direction: npt.ArrayLike) -> WideState:
    """The scalar model's state as a network of width m: a = c â, W = â bᵀ, S = â sᵀ. Its dynamics stay of this form.

    Args:
        state: the scalar model's weights.
        direction: (m,) vector along â; it is normalised.

    Raises:
        InputError: the direction is zero or not finite.

    >>> rank_one_state(State(2.0, [1.0], [0.5]), [3.0, 4.0]).a
    array([1.2, 1.6])
    """
    unit = np.asarray(direction, dtype=np.float64)
    norm = np.linalg.norm(unit)
    if not 0 < norm < np.inf:
        raise InputError(f"direction is {direction!r}: give a finite vector that is not zero")
    unit = unit / norm
    return WideState(
        state.c[..., None] * unit, unit[:, None] * state.b[..., None, :], unit[:, None] * state.s[..., None, :]
    )


def wide_loss(model: Model, state: WideState) -> Array:
    """Population loss L = ½ (Wᵀa−β)ᵀ Σ (Wᵀa−β) + ½ Σ_j α_j (a·S_j)² + ½ Σ_j α_j."""
    return loss(model, state.effective)


def wide_gradient(model: Model, state: WideState) -> WideState:
    """Gradient laid out as the weights are: ∂_a L = V g and ∂_V L = a gᵀ, with g = ∂_w L at w = Vᵀa."""
    g = gradient(model, state.effective).first_layer
    d_first = state.a[..., :, None] * g[..., None, :]
    d1 = model.beta.size
    return WideState((state.first_layer * g[..., None, :]).sum(-1), d_first[..., :d1], d_first[..., d1:])


def wide_descent(model: Model, start: WideState, lr: float, steps: int) -> WideState:
    """Gradient descent, (n, …) weights at steps 0…steps, cut before the first that is not finite.

    Raises:
        InputError: lr or steps is not positive.
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    m, d1 = start.W.shape
    vectors, _ = iterate(_slope(model, m, d1), start.vector, steps, lambda g: lr * g)
    return WideState.from_vector(vectors, m, d1)


def wide_flow(model: Model, start: WideState, times: npt.ArrayLike, *, rtol: float = 1e-11) -> WideState:
    """Gradient flow, (n, …) weights at the times given, which increase from at least 0.

    Raises:
        InputError: the integrator gave up.
    """
    at = np.asarray(times, dtype=np.float64)
    m, d1 = start.W.shape
    slope = _slope(model, m, d1)
    solution = solve_ivp(
        lambda _, v: -slope(v), (0.0, float(at[-1])), start.vector, "DOP853", at, rtol=rtol, atol=1e-2 * rtol
    )
    if not solution.success:
        raise InputError(f"the flow could not be integrated to time {at[-1]}: {solution.message}")
    return WideState.from_vector(solution.y.T, m, d1)


def balancedness_matrix(state: WideState) -> Array:
    """(..., m, m) Q = aaᵀ − WWᵀ − SSᵀ, constant under gradient flow; its trace is the scalar model's Q.

    >>> balancedness_matrix(rank_one_state(State(1.0, [0.6], [0.8]), [1.0, 0.0]))  # balanced
    array([[0., 0.],
           [0., 0.]])
    """
    return _outer(state.a) - state.first_layer @ np.swapaxes(state.first_layer, -1, -2)


def balancedness_change(model: Model, state: WideState, lr: float) -> Array:
    """(..., m, m) change of Q in one step of descent, exactly: η² (∂_a L ∂_a Lᵀ − ∂_V L ∂_V Lᵀ)."""
    return np.asarray(lr**2 * balancedness_matrix(wide_gradient(model, state)))


def opposing_transfer(model: Model, state: WideState, lr: float) -> Array:
    """(..., J, m, m) matrices I − η α_j a aᵀ that take S_j to the next step, exactly. Across a, S_j stands still.

    >>> s = rank_one_state(State(2.0, [1.0], [1.0]), [1.0, 0.0])
    >>> opposing_transfer(Model([1.0], [1.0], [1.0]), s, lr=0.1)
    array([[[0.6, 0. ],
            [0. , 1. ]]])
    """
    alpha = model.alpha[:, None, None]
    return np.asarray(np.eye(state.a.shape[-1]) - lr * alpha * _outer(state.a)[..., None, :, :])


def across_last_layer(state: WideState) -> Array:
    """(..., m, J) part of the opposing weights across the last layer, S − a (a·S)/‖a‖²: it has no effect on f.

    Zero at a rank-one state; at a = 0 it is all of S.
    """
    squared = (state.a**2).sum(-1)
    share = _contract(state.a, state.S) / np.where(squared > 0, squared, 1.0)[..., None]
    return np.asarray(state.S - state.a[..., :, None] * share[..., None, :])


def erosion_rate(model: Model, state: WideState, lr: float) -> Array:
    """Fall of ln‖S_⊥‖² a step at the edge of stability, (ηαz)² with z = a·S, first pair.

    The alternating z rocks a along S_⊥ by ±½ηαz‖S_⊥‖, in phase with itself, which takes the share ½(ηαz)² off S_⊥
    a step: oscillation drives the network towards rank one, which the flow does not. Leading order in ηαz, one pair.
    """
    return np.asarray((lr * model.alpha[0] * state.effective.s[..., 0]) ** 2)


def rank_one_curvature(model: Model, state: State) -> Array:
    """ω = ‖∂_w L‖ = √(‖Σr‖² + c²Σ_j α_j²s_j²): what width adds to the scalar model's Hessian at a rank-one state.

    The Hessian of the wide network there has the scalar model's eigenvalues and (m − 1) times ω, −ω and zeros
    (d1 + J − 1 of them). ω never exceeds the scalar model's sharpness, which is therefore the wide network's too.

    >>> float(rank_one_curvature(Model([1.0], [3.0], [1.0]), State(1.0, [0.0], [0.0])))
    3.0
    """
    effective = State(np.ones_like(state.c), state.c[..., None] * state.b, state.c[..., None] * state.s)
    return np.asarray(np.linalg.norm(gradient(model, effective).first_layer, axis=-1))


def _slope(model: Model, m: int, d1: int) -> VectorMap:
    """Gradient as a map of flat vectors."""
    return lambda vector: wide_gradient(model, WideState.from_vector(vector, m, d1)).vector


def _contract(a: Array, matrix: Array) -> Array:
    return np.asarray((a[..., :, None] * matrix).sum(-2))


def _outer(a: Array) -> Array:
    return np.asarray(a[..., :, None] * a[..., None, :])
