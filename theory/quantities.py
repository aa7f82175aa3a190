"""The numbers that theory predicts of a run, each with an error and a domain."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from theory.curvature import layer_sharpness, sharpness
from theory.curves import Curves
from theory.descent import gradient_descent
from theory.edge import edge_units
from theory.model import Model, State
from theory.onset import Onset
from theory.oscillation import growth_factor
from theory.spikes import spike_height

EDGE_SPREAD = 0.13
"""Descent that cannot reach the flow's limit ended at 0.87 to 0.998 of 2/η in the runs behind T8."""


SPIKE_ERROR = 0.35
SPIKE_EXCESS = (0.05, 1.1)
SPIKE_LEAST_START = 1e-5
"""Relative error of the first spike's height seen in nine of ten random runs, and where."""


OUTSIDE = "OUTSIDE"
"""Stands in the domain of a prediction that is made outside it."""


class Regime(StrEnum):
    """What becomes of descent (T8)."""

    CONVERGES = "converges"
    """2/η lies above the flow's final sharpness: descent follows the flow to its end."""
    EDGE = "edge of stability"
    """The flow ends above 2/η but flatter minima exist: descent oscillates and ends in one of them."""
    UNSTABLE = "no stable minimum"
    """2/η lies below the flattest minimum: descent oscillates for ever or diverges."""


@dataclass(frozen=True)
class Quantity:
    """One predicted number.

    Attributes:
        symbol: as the statements write it.
        meaning: in words.
        value: the number; None where there is none, such as the step of a crossing that never comes.
        error: absolute error to expect of a run of descent in the domain; None where no estimate is known.
        domain: where the prediction holds, in words, and whether this case lies in it.
        statement: the statement it comes from.
    """

    symbol: str
    meaning: str
    value: float | None
    error: float | None
    domain: str
    statement: str


def regime_of(threshold: float, flow_end: float, flattest: float) -> Regime:
    """The regime, from 2/η, the flow's final sharpness and the flattest minimum's."""
    if threshold > flow_end:
        return Regime.CONVERGES
    return Regime.EDGE if threshold > flattest else Regime.UNSTABLE


def sharpness_quantities(model: Model, start: State, lr: float, curves: Curves) -> dict[str, Quantity]:
    """Threshold, start, lowest and crossing. Descent leaves the flow in proportion to η: twice the gap at η/2."""
    horizon = len(curves.step) - 1
    half = layer_sharpness(model, gradient_descent(model, start, lr / 2, 2 * horizon).state).whole
    lowest, crossing = float(curves.sharpness.min()), curves.crossing_step
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
            "lowest sharpness",
            lowest,
            2 * abs(float(half.min()) - lowest),
            f"the flow's; error: twice its distance from descent at η/2; {gentle}",
            "T4",
        ),
        "turning_time": Quantity(
            "t₁",
            "flow time at which c turns from falling to rising",
            curves.turning_time,
            0.0,
            "the flow's first turn; with general Σ there may be others",
            "T5",
        ),
        "crossing_step": Quantity(
            "t(2/η)",
            "step at which the sharpness reaches 2/η",
            crossing,
            None,
            f"the flow's, after t₁; error: twice its distance from descent at η/2, and a step; {gentle}",
            "T8",
        ),
    }
    if crossing is not None:
        later = np.flatnonzero((half >= 2 / lr) & (np.arange(half.size) >= 2 * (curves.turning_time or 0) / lr))
        error = 2 * abs(later[0] / 2 - crossing) + 1 if later.size else None
        quantities["crossing_step"] = dataclasses.replace(quantities["crossing_step"], error=error)
    return quantities


def final_quantities(
    model: Model, start: State, limit: State, lr: float, regime: Regime, final: State | None
) -> dict[str, Quantity]:
    """Sharpness at the end, of the flow and of descent."""
    of_flow = layer_sharpness(model, limit)
    value, error, where = None, None, "2/η lies below the flattest minimum: descent does not settle"
    if regime is Regime.EDGE:
        value, error = 2 / lr * (1 - EDGE_SPREAD / 2), 2 / lr * EDGE_SPREAD / 2
        where = "the middle of what was seen, 0.87 to 1 times 2/η; proved: at most 2/η, where descent settles"
        if not start.s.any():
            where = f"s(0) ≠ 0, here 0: {OUTSIDE}, nothing oscillates and descent may settle above 2/η"
    elif regime is Regime.CONVERGES:
        end = limit if final is None else final
        value = float(sharpness(model, end))
        error = abs(value - float(of_flow.whole))
        where = "descent converges; first order in η, error: its distance from the flow's end"
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


def onset_quantities(onsets: tuple[Onset, ...], on_sample: Onset | None, steps: int) -> dict[str, Quantity]:
    """Step at which the oscillation has stopped c's rise: population (exact), and the sample given."""
    first = min((o for o in onsets if o.step is not None), key=lambda o: o.step or 0, default=onsets[0])
    quantities = {
        "onset_step": Quantity(
            "t(onset)",
            "step at which s² reaches D/(αc), population",
            first.step,
            None if first.step is None else first.error,
            f"exact in log space, however small s becomes; within {steps} steps",
            "T7, T12",
        )
    }
    if on_sample is not None:
        quantities["onset_step_sample"] = Quantity(
            "t(onset), n",
            "the same on the finite sample",
            on_sample.step,
            None if on_sample.step is None else on_sample.error,
            f"groups of nearly equal size; nine in ten runs within the error; grew from: {on_sample.seed}",
            "T11",
        )
    return quantities


def edge_quantities(
    model: Model, start: State, limit: State, lr: float, curves: Curves, onset: Onset
) -> dict[str, Quantity]:
    """Growth of the opposing weight, amplitude at the edge, and the first spike."""
    growth = Quantity(
        "|1 − ηαc²|",
        "growth of the opposing weight a step, at the flow's end",
        float(np.abs(growth_factor(model, limit, lr)[0])),
        0.0,
        "exact for the c it is taken at",
        "T7",
    )
    amplitude = curves.at_crossing(curves.edge_amplitude)
    return {
        "growth": growth,
        "amplitude": Quantity(
            "s² = D/(αc)",
            "amplitude at the edge of stability, where it is reached",
            amplitude,
            None if amplitude is None else abs(amplitude * (curves.at_crossing(curves.edge_correction) or 0.0)),
            "slow drive and settled (|Δ² ln D| < 0.006 g); before that it is what spikes swing about"
            + ("" if start.s.any() else f"; s(0) ≠ 0, here 0: {OUTSIDE}, s stays 0"),
            "T9",
        ),
        "spike_height": _spike_quantity(model, start, lr, onset),
    }


def _spike_quantity(model: Model, start: State, lr: float, onset: Onset) -> Quantity:
    """Height of the first spike in s², from the state in which descent arrives at the onset."""
    symbol, meaning = "max s²", "height of the first spike"
    if onset.step is None:
        return Quantity(symbol, meaning, None, None, "no onset within the horizon", "T10, T16")
    state = gradient_descent(model, start, lr, max(onset.step, 1)).state.at(-1)
    units = edge_units(model, state, lr)
    if not (units.drive > 0 and units.height > 0):
        return Quantity(symbol, meaning, None, None, "no positive drive, or s below float64's range", "T10, T16")
    spike = spike_height(units.drive, units.height, units.excess, units.damping)
    height = float(spike.height) / (4 * lr * float(model.alpha[0]))
    inside = SPIKE_EXCESS[0] < units.excess <= SPIKE_EXCESS[1] and units.height > SPIKE_LEAST_START * units.drive
    where = "so here" if inside else f"{OUTSIDE} here"
    return Quantity(
        symbol,
        meaning,
        height,
        SPIKE_ERROR * height,
        f"at the onset {SPIKE_EXCESS[0]} < ηαc² − 2 ≤ {SPIKE_EXCESS[1]} and w > {SPIKE_LEAST_START:g} g ({where}); "
        "of 270 random runs nine in ten lay within the error, the median 8 % below the prediction",
        "T10, T16",
    )
