"""Result type shared by gradient flow and gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from theory.model import State
from theory.symbolic import Array


@dataclass(frozen=True)
class Trajectory:
    """Weights along a run of either dynamics.

    Attributes:
        time: (n,) flow time; for descent, step × learning rate.
        state: weights with n as leading axis.
        turning_time: time at which c stops falling and rises ever after (T5); 0 when it rises from the start,
            None when it still falls at the end or where the dynamics does not look for it.
        diverged_at: index of the first state that was not finite, which is left out; None for a finite run.
    """

    time: Array
    state: State
    turning_time: float | None = None
    diverged_at: int | None = None
