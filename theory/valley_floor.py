"""Descent on the valley's floor, and the spike that an oscillation makes when it leaves it.

Between the crossing of 2/η and the onset the oscillation is too small to act on c and b, and s is slaved to the floor
s* of `SampleMoments.floor`. What c and b do meanwhile is therefore known without the oscillation, however long it
takes to grow; so is the excess e = ηαc² − 2 in which the onset finds them, and with it the spike's height (T10, T11).
"""

from __future__ import annotations

import math

import numpy as np

from theory.command_line import require_positive
from theory.finite_sample import SampleMoments, require_fit
from theory.model import State
from theory.onset import Onset
from theory.spikes import spike_height
from theory.symbolic import Array

_LEAST = 1e-12
"""Stands for a drive g that has gone, 4ηD/c* ≤ 0: the peak hangs on it through g ln g only."""


def floor_descent(moments: SampleMoments, start: State, lr: float, steps: int) -> State:
    """The weights after some steps of descent whose opposing weight is put on the floor from the crossing on.

    Args:
        moments: the sample, or `SampleMoments.from_model` of a population.
        start: weights at step 0.
        lr: step size η.
        steps: number of steps.

    Returns:
        One state. Up to the first step with ηαc² > 2 and c rising it is descent itself.

    Raises:
        InputError: lr or steps is not positive, or the start does not fit the sample.
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    require_fit(moments, start)
    state, slaved = start, False
    for _ in range(steps):
        slope = moments.gradient(state)
        slaved = slaved or bool(lr * moments.alpha * state.c**2 > 2 and state.c * slope.c < 0)
        c, b, s = state.c - lr * slope.c, state.b - lr * slope.b, state.s - lr * slope.s
        state = State(c, b, s)
        if slaved:
            state = State(c, b, np.atleast_1d(moments.floor(state)))
    return state


def distance_from_floor(moments: SampleMoments, state: State) -> Array:
    """|s − s*| of the opposing weight, of the state's leading shape; what `spike_after_onset` tells the largest of."""
    return np.asarray(np.abs(state.s[..., 0] - moments.floor(state)))


def spike_after_onset(moments: SampleMoments, start: State, lr: float, onset: Onset) -> float:
    """Predicted largest |s − s*| of the first spike after a predicted onset: √(w_peak/(4ηα)), w_peak of `spike_height`.

    The drive is frozen at what it is at the onset, for the c that is reached then. Hypothesis beyond those of
    `spike_height`: the onset comes late, so that c has come near its limit and b follows it.

    Args:
        moments: the sample.
        start: weights at step 0.
        lr: step size η.
        onset: as `sample_onset` or `population_onset` predicts it.

    Returns:
        The amplitude; 0 where no onset is predicted, NaN where descent is not above its threshold at the onset.
    """
    if onset.step is None:
        return 0.0
    state = floor_descent(moments, start, lr, max(onset.step, 1))
    alpha, c = moments.alpha, float(state.c)
    # e = ηαc² − 2,  g = 4ηD/c*,  w = 4ηαs² = 4ηD/c at the onset, where s² = D/(αc)
    excess, threshold = lr * alpha * c * c - 2, math.sqrt(2 / (lr * alpha))
    drive = float(moments.drive(state))
    if not (math.isfinite(excess) and excess > -1 and math.isfinite(drive)):
        return math.nan
    g, height = max(4 * lr * drive / threshold, _LEAST), max(4 * lr * drive / c, _LEAST)
    return math.sqrt(float(spike_height(g, height, excess).height) / (4 * lr * alpha))
