"""What the theory says of a run before it is made: numbers with their errors and domains, and curves over time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from theory.arrival import arrival
from theory.command_line import InputError, require_positive
from theory.curvature import sharpness
from theory.curves import Curves, predicted_curves
from theory.finite_sample import SampleMoments
from theory.limits import flow_limit
from theory.minima import descent_limit, smallest_minimum_sharpness
from theory.model import Model, State, require_weights_of
from theory.onset import Onset, population_onset, sample_onset
from theory.quantities import (
    Quantity,
    Regime,
    edge_quantities,
    final_quantities,
    onset_quantities,
    regime_of,
    sharpness_quantities,
)

MOST_NUMBERS = 10**8
"""Weights of a run's steps that the curves hold at once, 800 MB; some four times as much is in use."""


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
        model: the model, with at least one opposing pair; the edge is that of the pair whose onset comes first.
        start: weights at step 0, with c ≥ 0; −(c, b, s) is the same network.
        lr: step size η.
        steps: horizon of the curves and of the onsets.
        fraction: p, the fraction of outliers, for the group losses.
        sample: second moments of a finite sample, to predict its onset too.

    Raises:
        InputError: lr, steps, fraction or c(0) is out of its range, the model has no opposing pair, or the start is not
            of its features.

    The quantities by name: `threshold`, `sharpness_start`, `first_layer_start`, `last_layer_start`, `sharpness_lowest`,
    `turning_time`, `crossing_step`, `flow_sharpness_final`, `first_layer_final`, `last_layer_final`, `sharpness_final`,
    `onset_step` (and `onset_step_sample` with a sample), `growth`, `amplitude`, `spike_height`.

    >>> model = Model([20.0], [3.0], [1.0])
    >>> p = predict(model, State(1.0, [0.1], [0.9]), lr=0.04, steps=300)
    >>> p["threshold"], str(p.regime)
    (50.0, 'edge of stability')
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    require_weights_of(model, start)
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}: give a number above 0 and at most 1")
    if not model.alpha.size:
        raise InputError("alpha is empty: give the second moment of at least one opposing pair, 0 for none")
    if not float(start.c) >= 0:
        raise InputError(f"c is {float(start.c)}: give 0 or more; −(c, b, s) is the same network")
    if (steps + 1) * (start.c.size + model.curvatures.size) > MOST_NUMBERS:
        most = MOST_NUMBERS // (start.c.size + model.curvatures.size)
        raise InputError(f"steps is {steps} with {model.curvatures.size} features: give at most {most}")
    onsets = population_onset(model, start, lr, max_steps=steps)
    first = min(range(len(onsets)), key=lambda j: (onsets[j].step is None, onsets[j].step or 0, -model.alpha[j]))
    leading_model, leading_start = _with_pair_first(model, start, first)
    curves = predicted_curves(leading_model, leading_start, lr, steps, fraction)
    limit = flow_limit(model, start)
    flow_end = float(sharpness(model, limit))
    flattest = smallest_minimum_sharpness(model) if model.beta.any() else 0.0
    regime = regime_of(2 / lr, flow_end, flattest)
    on_sample = None if sample is None else sample_onset(sample, start, lr, max_steps=steps)
    final = descent_limit(model, start, lr) if regime is Regime.CONVERGES and model.beta.any() else None
    arrived = arrival(leading_model, leading_start, lr, onsets[first], steps)
    quantities = {
        **sharpness_quantities(model, start, lr, curves),
        **final_quantities(model, start, limit, lr, regime, final, arrived),
        **onset_quantities(arrived, on_sample, steps, None if sample is None else sample.imbalance(model.beta)),
        # Of the limit it reads c alone, which no order of the pairs changes.
        **edge_quantities(leading_model, leading_start, limit, lr, curves, arrived, regime),
    }
    return Predictions(lr, regime, quantities, onsets, on_sample, final, curves)


def _with_pair_first(model: Model, start: State, pair: int) -> tuple[Model, State]:
    """The same model and state with one opposing pair before the others."""
    order = [pair, *(j for j in range(model.alpha.size) if j != pair)]
    return Model(model.alpha[order], model.beta, model.covariance), State(start.c, start.b, start.s[..., order])


def table(predictions: Predictions) -> str:
    """The predictions as aligned lines: symbol, meaning, value, error, statement; then the domains."""
    cells = [
        (
            q.symbol,
            q.meaning,
            q.absent if q.value is None else f"{q.value:.6g}",
            "" if q.error is None else f"± {q.error:.2g}",
            f"({q.statement})" + (" *" if q.outside else ""),
        )
        for q in predictions.quantities.values()
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    star = " *" if predictions.quantities["sharpness_final"].outside else ""
    lines = [f"  regime: {predictions.regime} (T8){star}"]
    for a, b, c, d, e in cells:
        lines.append(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:<{widths[3]}}  {e}")
    outside = [q for q in predictions.quantities.values() if q.outside]
    if outside:
        lines.append("  * outside the prediction's domain here:")
        lines += [f"    {q.symbol}: {q.domain}" for q in outside]
    return "\n".join(lines)


def domains(predictions: Predictions) -> str:
    """Where each prediction holds, a line each."""
    return "\n".join(f"  {q.symbol}: {q.domain}" for q in predictions.quantities.values())


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
