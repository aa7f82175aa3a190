"""How the opposing weight moves: its factor in a step, and its size at the edge of stability."""

from __future__ import annotations

import numpy as np

from theory.model import Model, State, drive
from theory.symbolic import Array


def edge_amplitude(model: Model, state: State) -> Array:
    """Squared opposing weight of the oscillation at the edge of stability, s² = D/(αc) (T9), first pair."""
    return np.asarray(drive(model, state) / (model.alpha[0] * state.c))


def growth_factor(model: Model, state: State, lr: float) -> Array:
    """(..., J) factors 1 − ηα_jc² by which descent multiplies s_j in a step, exactly (T7).

    >>> growth_factor(Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [1.0]), lr=0.25)
    array([0.5])
    """
    return np.asarray(1 - lr * model.alpha * state.c[..., None] ** 2)
