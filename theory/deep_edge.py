"""Onset and first spike of the deep network with scalar layers, f = C (bᵀx + s uᵀx_o), C = c_{N−1} … c_1 (T14).

Descent moves C by all of its factors, ΔC = Σ_i (C/c_i) Δc_i = −ηκ ∂_C L to first order in η, with

    κ = C² Σ_i c_i⁻²,

which is 1 for depth 2 and (N−1) c^(2N−4) for equal layers, while s moves as in the scalar model. So with e = ηαC² − 2,
w = 4ηακs² and g = 4ηκD/C* the map of `theory.edge` holds to leading order at every depth: the edge at ηαC² = 2, the
amplitude s² = D/(αC), and the spike's height in w.
"""

from __future__ import annotations

import math

import numpy as np

from theory.command_line import require_positive
from theory.deep_network import DeepState, deep_gradient
from theory.model import Model, State, drive
from theory.onset import Onset, Seed
from theory.spikes import spike_height

_LEAST = 1e-12
"""Stands for a drive g that has gone; the peak hangs on it through g ln g only."""


def deep_onset(
    model: Model, start: DeepState, lr: float, *, theta: float = 1.0, max_steps: int = 10_000
) -> tuple[Onset, DeepState]:
    """Onset of the first pair's oscillation under the population loss, exactly, however small s becomes on the way.

    As `population_onset`, of which it is the case of depth 2 with one pair: descent in (c_i, b, ln|s|).

    Args:
        model: the model, with one opposing pair.
        start: weights at step 0, every c_i > 0; where C turns negative, no onset is seen (as in `population_onset`).
        lr: step size η.
        theta: visibility threshold θ: the onset is the first step with s² > θ² D/(αC) after the crossing.
        max_steps: horizon.

    Returns:
        The onset, and the weights at it (at the horizon, where there is none).

    Raises:
        InputError: lr, theta or max_steps is not positive.
    """
    for name, value in (("lr", lr), ("theta", theta), ("max_steps", max_steps)):
        require_positive(name, value)
    alpha, state = float(model.alpha[0]), start
    crossing, residue = None, math.nan
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        log_s = float(np.log(np.abs(start.s[0])))
        for t in range(max_steps + 1):
            product = float(state.layers.prod())
            d = float(drive(model, State(np.asarray(product), state.b, state.s)))
            rate, square = lr * alpha * product * product, math.exp(min(2 * log_s, 700.0))
            if crossing is None and rate > 2 and product * d > 0 and product * (d - product * alpha * square) > 0:
                crossing, residue = t, log_s
            # αs² > θ² D/C, in which all signs may turn
            if crossing is not None and square * rate / lr > theta**2 * product * d > 0:
                return Onset(t, crossing, Seed.RESIDUE, residue, -math.inf, 0.0), state
            slope = deep_gradient(model, state)
            log_s += math.log(abs(1 - rate)) if rate != 1 else -math.inf
            s = np.exp(np.atleast_1d(log_s)) if log_s > -math.inf else np.zeros(1)
            state = DeepState(state.layers - lr * slope.layers, state.b - lr * slope.b, s)
            if not np.isfinite(state.vector).all():
                break
    return Onset(None, crossing, Seed.NONE, residue, math.nan, math.nan), state


def deep_spike(model: Model, state: DeepState, lr: float) -> float:
    """Predicted largest |Cs| of the first spike after the onset, C* √(w_peak/(4ηακ)): the effective opposing weight.

    The drive is frozen at what it is at the onset. s is largest where C is at its threshold C* = √(2/(ηα)), so κ is
    taken there, with every c_i reduced alike. The discrete steps' correction in w_peak is that of depth 2: descent's
    largest |Cs| lay 6, 10, 16 and 21 % above the prediction at depths 2 to 5 (medians of 11 starts, Σ = I, e near 0.4).

    Args:
        model: the model, with one opposing pair.
        state: weights at the onset.
        lr: step size η.

    Returns:
        The height; NaN where e ≤ −1, far below the threshold.

    Raises:
        InputError: lr is not positive.
    """
    require_positive("lr", lr)
    # The height is the same with the signs of C and D turned.
    alpha, product = float(model.alpha[0]), float(state.layers.prod())
    sign, product = math.copysign(1, product), abs(product)
    threshold = math.sqrt(2 / (lr * alpha))
    layers = state.layers * (threshold / product) ** (1 / state.layers.size)
    kappa = threshold**2 * float((layers**-2).sum())
    d = sign * float(drive(model, state.effective))
    g = max(4 * lr * kappa * d / threshold, _LEAST)
    start = max(4 * lr * kappa * d / product, _LEAST)
    excess = lr * alpha * product * product - 2
    if not excess > -1:
        return math.nan
    peak = float(spike_height(g, start, excess).height)
    return threshold * math.sqrt(peak / (4 * lr * alpha * kappa))
