"""Depth N with scalar layers, f = c_{N−1} … c_1 (bᵀx + s uᵀx_o): the scalar model with c = Π c_i (T14).

∂_b L and ∂_s L are the scalar model's at c = Π c_i, and ∂_{c_i} L = (c/c_i) ∂_c L: all c_i > 0 turn together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.command_line import InputError, require_positive
from theory.descent import iterate
from theory.model import Model, State, gradient
from theory.symbolic import Array


@dataclass(frozen=True)
class DeepState:
    """Weights of a network of depth N, at one time or along any leading axes.

    Attributes:
        layers: (..., N − 1) scalar layers above the first.
        b: (..., d1) first-layer weights on the ordinary features.
        s: (..., J) first-layer weights on the opposing features.
    """

    layers: Array
    b: Array
    s: Array

    def __post_init__(self) -> None:
        for name in ("layers", "b", "s"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))

    @property
    def effective(self) -> State:
        """The scalar model's state (Π c_i, b, s), which gives the same function and first-layer curvature."""
        return State(self.layers.prod(-1), self.b, self.s)

    @property
    def vector(self) -> Array:
        """(..., N − 1 + d1 + J) all weights as one vector."""
        return np.concatenate([self.layers, self.b, self.s], axis=-1)

    @classmethod
    def from_vector(cls, vector: Array, depth: int, d1: int) -> DeepState:
        """Undoes `vector`."""
        above = depth - 1
        return cls(vector[..., :above], vector[..., above : above + d1], vector[..., above + d1 :])


def deep_gradient(model: Model, state: DeepState) -> DeepState:
    """Gradient laid out as the weights are: ∂_{c_i} L = (Π_{j≠i} c_j) ∂_c L, the rest as in the scalar model."""
    scalar = gradient(model, state.effective)
    others = np.stack([np.delete(state.layers, i, -1).prod(-1) for i in range(state.layers.shape[-1])], axis=-1)
    return DeepState(others * scalar.c[..., None], scalar.b, scalar.s)


def deep_descent(model: Model, start: DeepState, lr: float, steps: int) -> DeepState:
    """Gradient descent, (n, …) weights at steps 0…steps, cut before the first that is not finite.

    The opposing weights obey T7 with c = Π c_i: `growth_factor(model, run.effective, lr)`.

    Raises:
        InputError: lr or steps is not positive.
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    depth, d1 = start.layers.size + 1, start.b.size
    vectors, _ = iterate(
        lambda v: deep_gradient(model, DeepState.from_vector(v, depth, d1)).vector,
        start.vector,
        steps,
        lambda g: lr * g,
    )
    return DeepState.from_vector(vectors, depth, d1)


def layer_balancedness(state: DeepState) -> Array:
    """(..., N − 1) Q_i = c_i² − ‖b‖² − ‖s‖², each constant under gradient flow.

    >>> layer_balancedness(DeepState([2.0, 1.0], [0.6], [0.8]))
    array([3., 0.])
    """
    first = (state.b**2).sum(-1) + (state.s**2).sum(-1)
    return np.asarray(state.layers**2 - first[..., None])


def balanced_final_sharpness(model: Model, depth: int) -> float:
    """Sharpness at the flow's limit from a balanced start (every Q_i = 0): max(α, N) ‖β‖^(2−2/N).

    There c_i = ‖b‖ = ‖β‖^(1/N) and s = 0. Hypotheses: Σ = I, the flow converges to a minimum.

    Raises:
        InputError: the depth is below 2 or Σ is not the identity.

    >>> round(balanced_final_sharpness(Model([20.0], [3.0], [1.0]), depth=2), 9)  # α‖β‖
    60.0
    """
    if depth < 2:
        raise InputError(f"depth is {depth}: give 2 or more layers")
    if not (model.covariance == 1).all():
        raise InputError("the covariance is not the identity: the closed form needs Σ = I")
    return float(max(model.alpha.max(), depth) * np.linalg.norm(model.beta) ** (2 - 2 / depth))
