"""When the oscillation becomes visible after ηαc² has crossed 2: predicted step of onset.

Past the crossing |s| grows from whatever alternating part is left there, and the wait is as long as that part is small.
Three seeds compete, and the largest wins:

- the residue of the start, H = |s_0 − s*_0| ∏|1 − ηαc_t²|, exponentially small in 1/η;
- what every step adds, V_{t+1} = (1 − ηαc_t²)² V_t + σ²: rounding, or the noise of a minibatch;
- a part excited by the drift of the floor itself, beyond all orders of the lag series; it is left out here, and matters
  only in arithmetic finer than float64, or for strongly unequal groups at small α.

The smooth lag behind the floor (`finite_sample.lag_series`) is not among them: it does not alternate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from theory.alternation import alternating_part
from theory.command_line import require_positive
from theory.entry_exit import TYPICAL_SQUARE
from theory.finite_sample import SampleMoments, require_fit
from theory.model import Model, State, drive
from theory.symbolic import Array

FLOAT64 = 2.0**-53
FLOAT32 = 2.0**-24
"""Unit roundoffs."""

_FLAT = -4.0  # ln H below which the oscillation no longer bends the Hessian, so that its top eigenvalue is the rate


class Seed(StrEnum):
    """What the oscillation grew from."""

    RESIDUE = "residue"
    """What descent has left of the start's deviation from the floor."""
    NOISE = "noise"
    """What each step adds: rounding, or noise that was given."""
    NONE = "none"
    """Nothing grew to a visible size within the steps given."""


@dataclass(frozen=True)
class Onset:
    """A predicted onset of visible oscillation.

    Attributes:
        step: first step at which the amplitude exceeds θ √(D/(αc)); None when it does not within the horizon.
        crossing_step: first step with ηαc² > 2 while c rises and D > 0; None when there is none.
        seed: which seed the amplitude at onset stems from.
        log_residue: ln H at the crossing; −inf when a factor 1 − ηαc² was zero. NaN without a crossing.
        log_noise: ½ ln of the typical noise variance at the crossing; −inf without noise. NaN without a crossing.
        error: steps within which about nine in ten simulated onsets lay (measured; see `sample_onset`), 0 for an
            exact prediction; NaN without an onset.
    """

    step: int | None
    crossing_step: int | None
    seed: Seed
    log_residue: float
    log_noise: float
    error: float


def population_onset(
    model: Model, start: State, lr: float, *, theta: float = 1.0, max_steps: int = 10_000
) -> tuple[Onset, ...]:
    """Onset of every opposing pair under the population loss, exactly, however small s becomes on the way.

    Descent is followed in (c, b, ln|s|), ln|s_j(t)| = ln|s_j(0)| + Σ ln|1 − ηα_jc²| (T7), which never underflows. A
    factor of exactly 0, as at ηα_jc² = 1, leaves s_j = 0 for ever: that pair has no onset.

    Args:
        model: the model, with any number of pairs.
        start: weights at step 0.
        lr: step size η.
        theta: visibility threshold θ; at 1 the oscillation has stopped c's rise.
        max_steps: horizon.

    Returns:
        One onset per pair, in the model's order.

    Raises:
        InputError: lr, theta or max_steps is not positive.

    >>> model = Model([1600.0], [3.0, 0.0], [1.0, 1.0])  # s reaches e^(−952), far below float64's range
    >>> onset, = population_onset(model, State(1.0, [0.4, 0.1], [0.9]), lr=2 / (1600 * 2.1))
    >>> onset.seed, round(onset.log_residue) < -900
    (<Seed.RESIDUE: 'residue'>, True)
    """
    _require(lr, theta, max_steps)
    pairs = model.alpha.size
    crossing: list[int | None] = [None] * pairs
    step: list[int | None] = [None] * pairs
    residue = [math.nan] * pairs
    c, b = float(start.c), start.b
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        log_s = np.log(np.abs(start.s))
        for t in range(max_steps + 1):
            d = float(drive(model, State(np.asarray(c), b, start.s)))
            square = np.exp(2 * log_s)
            fall = c * float(model.alpha @ square)
            rate = lr * model.alpha * c * c
            for j in range(pairs):
                if crossing[j] is None and rate[j] > 2 and c * d > 0 and c * (d - fall) > 0:
                    crossing[j], residue[j] = t, float(log_s[j])
                # α_j s_j² > θ² D/c, in which (c, b, s) → −(c, b, s) changes nothing
                if crossing[j] is not None and step[j] is None and square[j] * rate[j] / lr > theta**2 * c * d > 0:
                    step[j] = t
            if None not in step or not math.isfinite(c):
                break
            # c += η(D − c Σ α_j s_j²), b += ηcΣ(β − cb), ln|s_j| += ln|1 − ηα_jc²|
            c, b = c + lr * (d - fall), b + lr * c * model.covariance * (model.beta - c * b)
            log_s = log_s + np.log(np.abs(1 - rate))
    return tuple(
        Onset(
            step=step[j],
            crossing_step=crossing[j],
            seed=Seed.NONE if step[j] is None else Seed.RESIDUE,
            log_residue=residue[j],
            log_noise=math.nan if crossing[j] is None else -math.inf,
            error=math.nan if step[j] is None else 0.0,
        )
        for j in range(pairs)
    )


def sample_onset(
    moments: SampleMoments,
    start: State,
    lr: float,
    *,
    noise: float | None = None,
    theta: float = 1.0,
    max_steps: int = 10_000,
) -> Onset:
    """Onset on a finite sample, from descent up to the crossing and two scalar recursions past it.

    H is multiplied by |1 − ηλ| a step and V by its square, plus σ²; a² = H² + 0.281 V is the amplitude. Past the
    crossing s is slaved to the floor, and the oscillation acts on c by −ηαca² a step. λ is αc², and once the amplitude
    is small the top eigenvalue of the sample's Hessian. Hypothesis: groups of nearly equal size; for larger |δ| the
    edge comes before ηαc² = 2 (`unequal_groups.biased_edge`), and an onset in between is not seen here.

    Measured on 400 random samples (α from 3 to 300): within `error` steps of descent in float64 for 96 % of the onsets
    from noise and 92 % of those from the residue, in float32 88 % and 94 %.

    Args:
        moments: the sample.
        start: weights at step 0, not on the valley's floor.
        lr: step size η.
        noise: σ, standard deviation of what each step adds to s; None for the rounding of float64 descent on the
            moments (`rounding_noise`). Per-example code in an arithmetic of unit roundoff u has about 0.1u; 0 is
            exact arithmetic.
        theta: visibility threshold θ.
        max_steps: horizon.

    Raises:
        InputError: lr, theta or max_steps is not positive, noise is negative, or the start does not fit the sample.
    """
    _require(lr, theta, max_steps)
    require_fit(moments, start)
    if noise is not None:
        require_positive("noise", noise, zero_allowed=True)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _follow(moments, start, lr, noise, theta, max_steps)


def observed_onset(moments: SampleMoments, states: State, lr: float, *, theta: float = 1.0) -> Onset:
    """Onset in a run that was made: where the alternating part |s_{t+1} − 2s_t + s_{t−1}|/4 exceeds θ √(D/(αc)).

    Args:
        moments: the sample the run was on.
        states: weights at steps 0…n of the run.
        lr: step size η.
        theta: visibility threshold θ.

    Returns:
        Step and crossing, with what the run does not tell left NaN.
    """
    c, s = states.c, states.s[..., 0]
    with np.errstate(over="ignore", invalid="ignore"):  # the end of a diverging run
        d = moments.drive(states)
        rises, driven = c * moments.gradient(states).c < 0, c * d > 0
    crossed = np.flatnonzero((lr * moments.alpha * c**2 > 2) & rises & driven)
    nothing = Onset(None, None, Seed.NONE, math.nan, math.nan, math.nan)
    if not crossed.size:
        return nothing
    amplitude = np.zeros_like(s)
    amplitude[1:-1] = np.abs(alternating_part(s))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        seen = np.flatnonzero((amplitude**2 > theta**2 * d / (moments.alpha * c)) & driven)
    seen = seen[seen > crossed[0]]
    step = int(seen[0]) if seen.size else None
    return Onset(step, int(crossed[0]), Seed.NONE, math.nan, math.nan, math.nan)


def rounding_noise(moments: SampleMoments, state: State, unit: float = FLOAT64) -> Array:
    """Rounding of a step of s in descent on the moments, σ ≈ u (|M| + |c vᵀb|)/(α|c|), at rates ηαc² near 2.

    Zero in the population with equal groups, where s is only ever multiplied.

    >>> m = SampleMoments.from_model(Model([4.0], [1.0], [1.0]), imbalance=0.5)
    >>> float(rounding_noise(m, State(2.0, [0.0], [0.0]), unit=1.0))
    0.25
    """
    across = np.abs(state.c * (state.b @ moments.cross))
    return np.asarray(unit * (abs(moments.opposing_target) + across) / (moments.alpha * np.abs(state.c)))


def _follow(
    moments: SampleMoments, start: State, lr: float, noise: float | None, theta: float, max_steps: int
) -> Onset:
    alpha, d1 = moments.alpha, moments.cross.size
    vector = start.vector
    log_h, log_v = _log(abs(start.s[0] - moments.floor(start))), -math.inf
    crossing, at_crossing = None, (math.nan, math.nan)
    for t in range(max_steps + 1):
        state = State.from_vector(vector, d1)
        c, floor = float(state.c), float(moments.floor(state))
        rate = lr * alpha * c * c
        if crossing is not None:
            # Slaved to the floor; the lag behind it moves no onset by a step.
            vector = np.append(vector[:-1], floor)
            state = State.from_vector(vector, d1)
        slope, d = moments.gradient(state).vector, float(moments.drive(state))
        log_noise = log_v + math.log(TYPICAL_SQUARE)
        log_square = float(np.logaddexp(2 * log_h, log_noise))
        if crossing is None and rate > 2 and c * d > 0 and c * slope[0] < 0:
            crossing, at_crossing = t, (log_h, log_noise / 2)
        # a² > θ² D/(αc)
        if crossing is not None and c * d > 0 and log_square > math.log(theta**2 * d / (alpha * c)):
            seed = Seed.RESIDUE if 2 * log_h >= log_noise else Seed.NOISE
            return Onset(t, crossing, seed, *at_crossing, error=_measured_error(seed, t - crossing))
        top = float(np.linalg.eigvalsh(moments.hessian(state))[-1]) if log_h < _FLAT else alpha * c * c
        # H ← |1 − ηλ| H,  V ← (1 − ηλ)² V + σ²
        sigma = float(rounding_noise(moments, state)) if noise is None else noise
        log_growth = _log(abs(1 - lr * top))
        log_h, log_v = log_h + log_growth, float(np.logaddexp(log_v + 2 * log_growth, 2 * _log(sigma)))
        vector = vector - lr * slope
        if crossing is not None:
            vector[0] -= lr * alpha * c * math.exp(min(log_square, 100.0))
        if not np.isfinite(vector).all() or vector[0] == 0 or abs(vector[0]) > 1e50:
            break
    return Onset(None, crossing, Seed.NONE, *at_crossing, error=math.nan)


def _measured_error(seed: Seed, delay: int) -> float:
    """Steps that held about nine in ten of the simulated onsets; short delays fall into the start's own transient."""
    return max(5.0, (0.04 if seed is Seed.NOISE else 0.2) * delay)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _require(lr: float, theta: float, max_steps: int) -> None:
    require_positive("lr", lr)
    require_positive("theta", theta)
    require_positive("max_steps", max_steps)
