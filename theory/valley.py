"""The valley of two variables in which one opposing pair makes descent bounce: (c, s) with b held.

    L(c, s) = ½ (cb − β)ᵀΣ(cb − β) + ½ αc²s² + ½ α

Its floor is s = 0, where neither group is favoured. Across the floor the curvature is αc², so the valley narrows as c
grows, which is what the first term asks for. Descent on (c, s) is map (1) of `theory.edge`, exactly.
"""

from __future__ import annotations

import numpy as np

from theory.command_line import InputError, require_positive
from theory.model import Model, State, hessian, vector_gradient
from theory.symbolic import Array


def valley_descent(model: Model, start: State, lr: float, steps: int) -> State:
    """Gradient descent on c and s alone.

    Args:
        model: the model.
        start: one state; its b is kept.
        lr: step size η.
        steps: number of steps.

    Returns:
        States at steps 0…steps, of leading shape (steps + 1,).

    Raises:
        InputError: lr or steps is not positive, or start is not one state.

    >>> path = valley_descent(Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [1.0]), lr=0.25, steps=1)
    >>> path.c.tolist(), path.s[:, 0].tolist()  # ∂L = (αcs², αc²s) = (2, 2)
    ([1.0, 0.5], [1.0, 0.5])
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    if start.c.ndim:
        raise InputError(f"the start has leading shape {start.c.shape}: give one state")
    vectors = np.empty((steps + 1, start.vector.size))
    vectors[0] = start.vector
    moving, slope = _moving(start), vector_gradient(model)
    for t in range(steps):
        vectors[t + 1] = vectors[t] - lr * np.where(moving, slope(vectors[t]), 0.0)
    return State.from_vector(vectors, start.b.size)


def valley_hessian(model: Model, state: State) -> Array:
    """(..., 1 + J, 1 + J) second derivatives over (c, s) at fixed b.

    >>> valley_hessian(Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [1.0]))  # [[αs², 2αcs], [2αcs, αc²]]
    array([[2., 4.],
           [4., 2.]])
    """
    kept = np.flatnonzero(_moving(state))
    return np.asarray(hessian(model, state)[..., kept[:, None], kept])


def _moving(state: State) -> np.ndarray:
    """Which entries of the weights' vector (c, b, s) move: all but b."""
    moving = np.ones(state.vector.shape[-1], dtype=np.bool_)
    moving[1 : 1 + state.b.shape[-1]] = False
    return moving
