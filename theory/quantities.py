"""The numbers that theory predicts of a run, each with an error and a domain."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from theory.arrival import Arrival
from theory.curvature import layer_sharpness, sharpness
from theory.curves import Curves
from theory.descent import gradient_descent
from theory.edge import SLOWNESS
from theory.model import Model, State
from theory.onset import Onset
from theory.oscillation import growth_factor
from theory.spikes import spike_height

EDGE_SPREAD = 0.13
"""Descent that cannot reach the flow's limit ended at 0.87 to 0.998 of 2/η in the runs behind T8."""


NEARLY_ALL = 0.95
"""Least αc² over the sharpness at the crossing of 2/η at which the crossing is the opposing pair's."""


SPIKE_ERROR = 0.35
SPIKE_EXCESS = (0.05, 1.1)
SPIKE_LEAST_START = 1e-5
"""Relative error of the first spike's height seen in 85 % of 223 random runs, and where."""


SPIKE_LEAST_ALPHA = 5.0
"""Least α over the largest Σ for that: below it the ordinary features move as fast as the spike."""


LARGEST_EXCESS = 2.0
"""ηαc² − 2 at the onset up to which runs at the edge settled, 403 of 406 random ones; of 29 above it 16 diverged."""


LARGEST_IMBALANCE = 0.6
"""|δ| up to which the onset on samples was seen within its error; at 0.9 it came at half of the predicted step."""


OUTSIDE = "OUTSIDE"
"""Stands in the domain of a prediction that is made outside it."""


class Regime(StrEnum):
    """What becomes of descent (T8)."""

    CONVERGES = "converges"
    """2/η lies above the flow's final sharpness: descent follows the flow to its end, from a start below 2/η too."""
    EDGE = "edge of stability"
    """The flow ends above 2/η but flatter minima exist: descent oscillates, and ends in one of them or diverges."""
    UNSTABLE = "no stable minimum"
    """2/η lies below the flattest minimum: descent oscillates for ever or diverges."""


@dataclass(frozen=True)
class Quantity:
    """One predicted number.

    Attributes:
        symbol: as the statements write it.
        meaning: in words.
        value: the number; None where there is none, such as the step of a crossing that never comes.
        error: absolute error to expect of a run of descent in the domain; None where no estimate is known, or no value.
        domain: where the prediction holds, in words, and whether this case lies in it.
        statement: the statement it comes from.
        absent: what is printed where there is no value.
    """

    symbol: str
    meaning: str
    value: float | None
    error: float | None
    domain: str
    statement: str
    absent: str = "none"

    def __post_init__(self) -> None:
        finite = self.value is not None and bool(np.isfinite(self.value))
        if not finite:
            object.__setattr__(self, "value", None)
        if not finite or self.error is None or not np.isfinite(self.error):
            object.__setattr__(self, "error", None)

    @property
    def outside(self) -> bool:
        """Whether it is predicted outside its domain."""
        return OUTSIDE in self.domain


def regime_of(threshold: float, flow_end: float, flattest: float) -> Regime:
    """The regime, from 2/η, the flow's final sharpness and the flattest minimum's."""
    if threshold > flow_end:
        return Regime.CONVERGES
    return Regime.EDGE if threshold > flattest else Regime.UNSTABLE


def not_within(steps: int) -> str:
    """What is printed for a step that does not come within the horizon; later it may."""
    return f"not in {steps}"


def sharpness_quantities(model: Model, start: State, lr: float, curves: Curves) -> dict[str, Quantity]:
    """Threshold, start, lowest and crossing. Descent leaves the flow in proportion to η: twice the gap at η/2."""
    horizon = len(curves.step) - 1
    with np.errstate(over="ignore", invalid="ignore"):  # the end of one that diverges
        half = layer_sharpness(model, gradient_descent(model, start, lr / 2, 2 * horizon).state).whole
    lowest, crossing, late = float(curves.sharpness.min()), curves.crossing_step, not_within(horizon)
    at_start = layer_sharpness(model, start)
    initial = lr * float(at_start.whole)
    gentle = f"ηλ(0) < 1, here {initial:.2g}" + ("" if initial < 1 else f": {OUTSIDE}, descent leaves the flow at once")
    quantities = {
        "threshold": Quantity("2/η", "stability threshold", 2 / lr, 0.0, "always", "T8"),
        "sharpness_start": Quantity(
            "λ(0)", "sharpness at the start", float(at_start.whole), 0.0, "always; to rounding", "T2"
        ),
        "first_layer_start": Quantity(
            "αc²(0)", "first layer's block at the start", float(at_start.first), 0.0, "always", "T3"
        ),
        "last_layer_start": Quantity(
            "‖b‖²+αs²(0)", "last layer's block at the start", float(at_start.last), 0.0, "always", "T3"
        ),
        "sharpness_lowest": Quantity(
            "min λ",
            "lowest sharpness before the onset",
            lowest,
            3 * abs(float(half.min()) - lowest),
            f"the flow's, within {horizon} steps; a tall spike may throw the sharpness below it; error: three times "
            f"its distance from descent at η/2; {gentle}",
            "T4",
        ),
        "turning_time": Quantity(
            "t₁",
            "flow time at which c turns from falling to rising",
            curves.turning_time,
            0.0,
            f"the flow's first turn, within {horizon} steps; with general Σ there may be others",
            "T5",
            late,
        ),
        "crossing_step": Quantity(
            "t(2/η)",
            "step at which the sharpness reaches 2/η",
            crossing,
            None,
            f"the flow's, after t₁, within {horizon} steps; error: twice its distance from descent at η/2, and a step; "
            f"{gentle}",
            "T8",
            late,
        ),
    }
    if crossing is not None:
        later = np.flatnonzero((half >= 2 / lr) & (np.arange(half.size) >= 2 * (curves.turning_time or 0) / lr))
        error = 2 * abs(later[0] / 2 - crossing) + 1 if later.size else None
        quantities["crossing_step"] = dataclasses.replace(quantities["crossing_step"], error=error)
    return quantities


def final_quantities(
    model: Model, start: State, limit: State, lr: float, regime: Regime, final: State | None, arrived: Arrival
) -> dict[str, Quantity]:
    """Sharpness at the end, of the flow and of descent."""
    block, whole = lr * float(model.alpha.max()) * float(start.c) ** 2, arrived.multiple
    of_flow = layer_sharpness(model, limit)
    value, error, where = None, None, "2/η lies below the flattest minimum: descent does not settle"
    if regime is Regime.EDGE:
        value, error = 2 / lr * (1 - EDGE_SPREAD / 2), 2 / lr * EDGE_SPREAD / 2
        where = "the middle of what was seen, 0.87 to 1 times 2/η; proved: at most 2/η, where descent settles"
        excess = 0.0 if arrived.units is None else arrived.units.excess
        if not start.s.any():
            where = f"s(0) ≠ 0, here 0: {OUTSIDE}, nothing oscillates and descent may settle above 2/η"
        elif block >= 2:
            where += f"; ηαc(0)² < 2, here {block:.2g}: {OUTSIDE}, s grows from the first step on and most runs diverge"
        elif arrived.lost:
            where += f"; {arrived.lost}: {OUTSIDE}"
        elif not excess <= LARGEST_EXCESS:
            where += f"; ηαc² − 2 ≤ {LARGEST_EXCESS:g} at the onset, here {excess:.2g}: {OUTSIDE}, most runs diverge"
    elif regime is Regime.CONVERGES:
        end = limit if final is None else final
        value = float(sharpness(model, end))
        error = abs(value - float(of_flow.whole))
        where = "descent converges; first order in η, error: its distance from the flow's end; ηλ(0) < 2, here "
        where += f"{whole:.2g}" + ("" if whole < 2 else f": {OUTSIDE}, descent bounces at once, and may diverge")
    return {
        "flow_sharpness_final": Quantity(
            "λ(∞)", "final sharpness of the flow", float(of_flow.whole), 0.0, "the flow; any Σ", "T6"
        ),
        "first_layer_final": Quantity(
            "αc²(∞)", "first layer's block at the flow's end", float(of_flow.first), 0.0, "the flow", "T3, T6"
        ),
        "last_layer_final": Quantity(
            "‖b‖²+αs²(∞)", "last layer's block at the flow's end", float(of_flow.last), 0.0, "the flow", "T3, T6"
        ),
        "sharpness_final": Quantity("λ(end)", "final sharpness of descent", value, error, where, "T8"),
    }


def onset_quantities(
    arrived: Arrival, on_sample: Onset | None, steps: int, imbalance: float | None = None
) -> dict[str, Quantity]:
    """Step at which the oscillation has stopped c's rise: population (exact), and the sample given with its δ."""
    first = arrived.onset
    where = f"exact in log space, however small s becomes; within {steps} steps"
    if arrived.lost:
        where += f"; of runs in float64, {arrived.lost}: {OUTSIDE}"
    quantities = {
        "onset_step": Quantity(
            "t(onset)",
            "step at which s² reaches D/(αc), population",
            first.step,
            None if first.step is None else first.error,
            where,
            "T7, T12",
            not_within(steps),
        )
    }
    if on_sample is not None:
        assert imbalance is not None
        unequal = abs(imbalance) > LARGEST_IMBALANCE
        quantities["onset_step_sample"] = Quantity(
            "t(onset), n",
            "the same on the finite sample",
            on_sample.step,
            None if on_sample.step is None else on_sample.error,
            f"groups of nearly equal size, |δ| ≤ {LARGEST_IMBALANCE}, here {abs(imbalance):.2g}"
            + (f": {OUTSIDE}" if unequal else "")
            + f"; nine in ten runs within the error; grew from: {on_sample.seed}",
            "T11",
            not_within(steps),
        )
    return quantities


def edge_quantities(
    model: Model, start: State, limit: State, lr: float, curves: Curves, arrived: Arrival, regime: Regime
) -> dict[str, Quantity]:
    """Growth of the opposing weight, amplitude at the edge, and the first spike, of the model's first pair."""
    growth = Quantity(
        "|1 − ηαc²|",
        "growth of the opposing weight a step, at the flow's end",
        float(np.abs(growth_factor(model, limit, lr)[0])),
        0.0,
        "exact for the c it is taken at",
        "T7",
    )
    return {
        "growth": growth,
        "amplitude": _amplitude_quantity(model, start, curves, arrived.onset, regime),
        "spike_height": _spike_quantity(model, lr, arrived),
    }


def _amplitude_quantity(model: Model, start: State, curves: Curves, onset: Onset, regime: Regime) -> Quantity:
    """s² = D/(αc) with c at threshold and b as where the flow's sharpness crosses 2/η."""
    symbol, meaning = "s² = D/(αc)", "amplitude at the edge, with D as at the crossing"
    amplitude, correction = (curves.at_crossing(of) for of in (curves.edge_amplitude, curves.edge_correction))
    if curves.crossing_step is None or amplitude is None:
        return Quantity(symbol, meaning, None, None, "no crossing of 2/η within the horizon", "T9")
    share = float(model.alpha[0]) * curves.flow_c[curves.crossing_step] ** 2 / curves.sharpness[curves.crossing_step]
    if not np.isfinite(amplitude) or share < NEARLY_ALL:
        return Quantity(symbol, meaning, None, None, "another feature crosses 2/η, or no positive drive there", "T9")
    # |Δ² ln D|/g is twice the first correction.
    slow = 2 * abs(correction) if correction is not None and np.isfinite(correction) else np.inf
    reasons = {
        f"|Δ² ln D| < {SLOWNESS} g, here {slow:.2g} g": slow < SLOWNESS,
        "s(0) ≠ 0": bool(start.s.any()),
        "descent settles": regime is not Regime.UNSTABLE,
        "an onset within the horizon": onset.step is not None,
    }
    unmet = [words for words, met in reasons.items() if not met]
    where = "; ".join(reasons)
    if unmet:
        where = f"not met: {'; '.join(unmet)}: {OUTSIDE}, D may have fallen far by the onset"
    error = None if unmet else abs(amplitude) * slow / 2
    return Quantity(symbol, meaning, amplitude, error, f"slow drive and settled: {where}", "T9")


def _spike_quantity(model: Model, lr: float, arrived: Arrival) -> Quantity:
    """Height of the first spike in s², from the state in which descent arrives at the onset."""
    symbol, meaning = "max s²", "height of the first spike"
    units, lost = arrived.units, f"; {arrived.lost}: {OUTSIDE}" if arrived.lost else ""
    if units is None:
        return Quantity(symbol, meaning, None, None, f"no onset within the horizon{lost}", "T10, T16")
    if not (units.drive > 0 and units.height > 0 and units.excess > -1):
        where = f"no positive drive, c far below threshold again, or s below float64's range at the onset{lost}"
        return Quantity(symbol, meaning, None, None, where, "T10, T16")
    spike = spike_height(units.drive, units.height, units.excess, units.damping)
    height = float(spike.height) / (4 * lr * float(model.alpha[0]))
    inside = SPIKE_EXCESS[0] < units.excess <= SPIKE_EXCESS[1] and units.height > SPIKE_LEAST_START * units.drive
    inside &= float(model.alpha[0]) >= SPIKE_LEAST_ALPHA * float(model.covariance.max(initial=0.0))
    where = "so here" if inside else f"{OUTSIDE} here"
    return Quantity(
        symbol,
        meaning,
        height,
        SPIKE_ERROR * height,
        f"at the onset {SPIKE_EXCESS[0]} < ηαc² − 2 ≤ {SPIKE_EXCESS[1]} and w > {SPIKE_LEAST_START:g} g, and α at "
        f"least {SPIKE_LEAST_ALPHA:g} times the largest Σ ({where}); of 223 random runs 85 % lay within the error, the "
        f"median 7 % below the prediction{lost}",
        "T10, T16",
    )
