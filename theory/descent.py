"""Gradient descent θ_{t+1} = θ_t − η ∇L(θ_t) on the population loss, and the loop it shares with other maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theory.command_line import require_positive
from theory.model import Model, State, require_weights_of, vector_gradient
from theory.symbolic import Array, VectorMap
from theory.trajectory import Trajectory


def gradient_descent(model: Model, start: State, lr: float, steps: int) -> Trajectory:
    """Iterates c += η(D − c Σ α_j s_j²), b += ηcΣ(β − cb), s_j = (1 − ηα_jc²) s_j (T7).

    Args:
        model: the model.
        start: weights at step 0.
        lr: step size η.
        steps: number of steps.

    Returns:
        The weights at steps 0…steps; cut before the first that is not finite, if one is not.

    Raises:
        InputError: lr or steps is not positive, or the start is not of the model's features.

    >>> m = Model(alpha=[1.0], beta=[0.0], covariance=[1.0])
    >>> gradient_descent(m, State(1.0, [0.0], [0.5]), lr=0.1, steps=1).state.s[1]  # (1 − 0.1) · 0.5
    array([0.45])
    """
    require_weights_of(model, start)
    return descend_vectors(vector_gradient(model), start, lr, steps)


def descend(
    slope: Callable[[State], State], start: State, lr: float, steps: int, displacement: VectorMap | None = None
) -> Trajectory:
    """Descends any loss of (c, b, s) by any rule that turns its gradients into displacements.

    Args:
        slope: gradient of the loss, laid out as the weights are.
        start: weights at step 0.
        lr: step size η; it sets the trajectory's time, and the rule when none is given.
        steps: number of steps.
        displacement: gradient as one vector → what is taken off the weights; η ∇L when not given. It may remember
            earlier gradients, so each run needs a new one.

    Returns:
        The weights at steps 0…steps; cut before the first that is not finite, if one is not.

    Raises:
        InputError: lr or steps is not positive.

    >>> double = lambda state: State(2 * state.c, 2 * state.b, 2 * state.s)
    >>> descend(double, State(1.0, [1.0], [1.0]), lr=0.25, steps=2).state.c  # (1 − 0.5)ᵗ
    array([1.  , 0.5 , 0.25])
    """
    d1 = start.b.shape[-1]
    return descend_vectors(lambda vector: slope(State.from_vector(vector, d1)).vector, start, lr, steps, displacement)


def descend_vectors(
    slope: VectorMap, start: State, lr: float, steps: int, displacement: VectorMap | None = None
) -> Trajectory:
    """`descend` with the loss's gradient as a map of vectors (c, b, s)."""
    require_positive("lr", lr)
    require_positive("steps", steps)
    vectors, diverged_at = iterate(
        slope,
        start.vector,
        steps,
        (lambda gradient_vector: lr * gradient_vector) if displacement is None else displacement,
    )
    time = np.asarray(lr * np.arange(len(vectors)), dtype=np.float64)
    return Trajectory(time, State.from_vector(vectors, start.b.shape[-1]), diverged_at=diverged_at)


def iterate(slope: VectorMap, start: Array, steps: int, displacement: VectorMap) -> tuple[Array, int | None]:
    """The loop of every descent: θ_{t+1} = θ_t − displacement(slope(θ_t)).

    Returns:
        (n, size) weights, and the index of the first that was not finite, which is left out; None if all are.
    """
    vectors = np.empty((steps + 1, start.size))
    vectors[0] = start
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            vectors[t + 1] = vectors[t] - displacement(slope(vectors[t]))
            if not np.isfinite(vectors[t + 1]).all():
                return vectors[: t + 1], t + 1
    return vectors, None
