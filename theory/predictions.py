"""What the theory says of a run before it is made: numbers with their errors and domains, and curves over time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from theory.command_line import require_positive
from theory.curvature import layer_sharpness, sharpness
from theory.curves import Curves, predicted_curves
from theory.descent import gradient_descent
from theory.edge import edge_units
from theory.finite_sample import SampleMoments
from theory.limits import flow_limit
from theory.minima import descent_limit, smallest_minimum_sharpness
from theory.model import Model, State
from theory.onset import Onset, population_onset, sample_onset
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


@dataclass(frozen=True)
class Predictions:
    """Predictions for descent with step size η.

    Attributes:
        lr: step size η.
        regime: what becomes of the run.
        quantities: every predicted number by name.
        onsets: onset of each opposing pair under the population loss, in the model's order.
        sample_onset: onset on the sample given, None without one.
        final: state in which descent ends; None at the edge, where theory gives its sharpness alone.
        curves: predictions over time.
    """

    lr: float
    regime: Regime
    quantities: dict[str, Quantity]
    onsets: tuple[Onset, ...]
    sample_onset: Onset | None
    final: State | None
    curves: Curves

    def __getitem__(self, name: str) -> float | None:
        """Value of a quantity."""
        return self.quantities[name].value

    def as_dict(self, *, curves: bool = False) -> dict[str, Any]:
        """Plain values for JSON, NaN as None; the curves only on request."""
        plain: dict[str, Any] = {
            "lr": self.lr,
            "regime": str(self.regime),
            "quantities": {name: dataclasses.asdict(q) for name, q in self.quantities.items()},
            "onsets": [dataclasses.asdict(o) for o in self.onsets],
            "sample_onset": None if self.sample_onset is None else dataclasses.asdict(self.sample_onset),
        }
        if self.final is not None:
            plain["final"] = {"c": self.final.c.tolist(), "b": self.final.b.tolist(), "s": self.final.s.tolist()}
        if curves:
            plain["curves"] = {k: v.tolist() for k, v in vars(self.curves).items()}
        cleaned: dict[str, Any] = _without_nan(plain)
        return cleaned


def predict(
    model: Model,
    start: State,
    lr: float,
    steps: int,
    *,
    fraction: float = 0.05,
    sample: SampleMoments | None = None,
) -> Predictions:
    """Predicts a run of descent from closed forms, the flow, and recursions of a few scalars.

    Args:
        model: the model; the edge is that of its first opposing pair.
        start: weights at step 0, with c > 0.
        lr: step size η.
        steps: horizon of the curves and of the onsets.
        fraction: p, the fraction of outliers, for the group losses.
        sample: second moments of a finite sample, to predict its onset too.

    Raises:
        InputError: lr, steps or fraction is out of its range.

    >>> model = Model([20.0], [3.0], [1.0])
    >>> p = predict(model, State(1.0, [0.1], [0.9]), lr=0.04, steps=300)
    >>> p["threshold"], str(p.regime)
    (50.0, 'edge of stability')
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    curves = predicted_curves(model, start, lr, steps, fraction)
    limit = flow_limit(model, start)
    flow_end = float(sharpness(model, limit))
    flattest = smallest_minimum_sharpness(model) if model.beta.any() else 0.0
    regime = _regime(2 / lr, flow_end, flattest)
    onsets = population_onset(model, start, lr, max_steps=steps)
    on_sample = None if sample is None else sample_onset(sample, start, lr, max_steps=steps)
    final = descent_limit(model, start, lr) if regime is Regime.CONVERGES and model.beta.any() else None
    quantities = {
        **_sharpness_quantities(model, start, lr, curves),
        **_final_quantities(model, limit, lr, regime, final),
        **_onset_quantities(onsets, on_sample, steps),
        **_edge_quantities(model, start, limit, lr, curves, onsets[0]),
    }
    return Predictions(lr, regime, quantities, onsets, on_sample, final, curves)


def table(predictions: Predictions) -> str:
    """The predictions as aligned lines: symbol, meaning, value, error, statement; then the domains."""
    cells = [
        (
            q.symbol,
            q.meaning,
            _number(q.value),
            "" if q.error is None else f"± {q.error:.2g}",
            f"({q.statement})" + (" *" if OUTSIDE in q.domain else ""),
        )
        for q in predictions.quantities.values()
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = [f"  regime: {predictions.regime} (T8)"]
    for a, b, c, d, e in cells:
        lines.append(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:<{widths[3]}}  {e}")
    if any(OUTSIDE in q.domain for q in predictions.quantities.values()):
        lines.append("  * outside the prediction's domain here; --domains says why")
    return "\n".join(lines)


def domains(predictions: Predictions) -> str:
    """Where each prediction holds, a line each."""
    return "\n".join(f"  {q.symbol}: {q.domain}" for q in predictions.quantities.values())


def _regime(threshold: float, flow_end: float, flattest: float) -> Regime:
    if threshold > flow_end:
        return Regime.CONVERGES
    return Regime.EDGE if threshold > flattest else Regime.UNSTABLE


def _sharpness_quantities(model: Model, start: State, lr: float, curves: Curves) -> dict[str, Quantity]:
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


def _final_quantities(
    model: Model, limit: State, lr: float, regime: Regime, final: State | None
) -> dict[str, Quantity]:
    """Sharpness at the end, of the flow and of descent."""
    of_flow = layer_sharpness(model, limit)
    value, error, where = None, None, "2/η lies below the flattest minimum: descent does not settle"
    if regime is Regime.EDGE:
        value, error = 2 / lr * (1 - EDGE_SPREAD / 2), 2 / lr * EDGE_SPREAD / 2
        where = "the middle of what was seen, 0.87 to 1 times 2/η; proved: at most 2/η, where descent settles"
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


def _onset_quantities(onsets: tuple[Onset, ...], on_sample: Onset | None, steps: int) -> dict[str, Quantity]:
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


def _edge_quantities(
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
            "slow drive and settled (|Δ² ln D| < 0.006 g); before that it is what spikes swing about",
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


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:.6g}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
