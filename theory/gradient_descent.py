"""Gradient descent θ_{t+1} = θ_t − η ∇L(θ_t) on the population loss."""

from __future__ import annotations

import numpy as np

from theory.command_line import require_positive
from theory.model import Model, State, gradient
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
        InputError: lr or steps is not positive.

    >>> m = Model(alpha=[1.0], beta=[0.0], covariance=[1.0])
    >>> gradient_descent(m, State(1.0, [0.0], [0.5]), lr=0.1, steps=1).state.s[1]  # (1 − 0.1) · 0.5
    array([0.45])
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    d1 = model.beta.size
    vectors = np.empty((steps + 1, start.vector.size))
    vectors[0] = start.vector
    diverged_at = None
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            step = gradient(model, State.from_vector(vectors[t], d1)).vector
            vectors[t + 1] = vectors[t] - lr * step
            if not np.isfinite(vectors[t + 1]).all():
                diverged_at = t + 1
                break
    kept = steps + 1 if diverged_at is None else diverged_at
    return Trajectory(
        time=np.asarray(lr * np.arange(kept), dtype=np.float64),
        state=State.from_vector(vectors[:kept], d1),
        diverged_at=diverged_at,
    )
