"""What the theory says of a run before it is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from theory.command_line import require_positive
from theory.gradient_flow import gradient_flow
from theory.model import Model, State, drive
from theory.sharpness import LayerSharpness, layer_sharpness
from theory.symbolic import Array


@dataclass(frozen=True)
class Predictions:
    """Predictions for descent with step size η, from the flow and closed forms.

    Attributes:
        lr: step size η.
        threshold: 2/η, above which descent is unstable.
        sharpness_start: sharpness of the start (T2).
        sharpness_lowest: lowest sharpness along the flow.
        sharpness_final: sharpness at the flow's limit (T6).
        first_layer_start: first layer's block at the start; likewise `last_layer_start`.
        first_layer_final: first layer's block at the flow's limit; likewise `last_layer_final`.
        turning_time: time t₁ at which c turns from falling to rising (T5); None if it does not within the horizon.
        crossing_step: first step after t₁ at which the flow's sharpness reaches 2/η; None if it never does.
        growth: |1 − ηαc²| at the flow's limit: factor by which the opposing weight grows (> 1) or shrinks a step (T7).
        amplitude: s² = D/(αc) of the oscillation at the edge of stability, at the crossing (T9); None without one.
    """

    lr: float
    threshold: float
    sharpness_start: float
    sharpness_lowest: float
    sharpness_final: float
    first_layer_start: float
    first_layer_final: float
    last_layer_start: float
    last_layer_final: float
    turning_time: float | None
    crossing_step: int | None
    growth: float
    amplitude: float | None


def flow_limit(model: Model, start: State) -> State:
    """Limit of gradient flow (T6): s = 0, cb = β and c² = (Q + √(Q² + 4‖β‖²))/2, whatever Σ is.

    Coordinates of second moment 0 never move: their weights are kept, and Q and ‖β‖ are those of the others. With β = 0
    the limit is s = b = 0, c² = Q for Q ≥ 0; for Q < 0 it is c = 0, and the weights w_i(0) exp(−λ_i τ) that are left
    are those with norm² −Q. A start with c = 0 and bᵀΣβ = 0 does not move.

    Hypotheses: the flow does not end in the saddle c = 0; for β ≠ 0 almost no start does. c keeps its sign for Q ≥ 0;
    for Q < 0 it may pass through 0, and then the limit is minus the one returned, of the same loss and sharpness.

    Args:
        model: the model.
        start: weights at time 0, one state.

    >>> limit = flow_limit(Model([1.0], [3.0], [1.0]), State(1.0, [1.0], [0.0]))
    >>> round(float(limit.c) ** 2, 12)  # balanced: c² = ‖β‖
    3.0
    """
    c, w = float(start.c), start.first_layer
    moves = model.curvatures > 0
    target = np.where(moves, model.target, 0.0)
    largest = np.abs(target).max()
    # Weights have the unit of √β; in units of the largest, to a power of 2, no square overflows and nothing is rounded.
    size = max(abs(c), np.abs(w).max(), np.sqrt(largest))
    if size == 0 or (c == 0 and drive(model, start) == 0):
        return start
    unit = 2.0 ** np.frexp(size)[1]
    q = (c / unit) ** 2 - ((w[moves] / unit) ** 2).sum()
    if largest == 0:
        c_end, w_end = _limit_without_target(c / unit, w / unit, model.curvatures, q)
    else:
        norm = np.linalg.norm(target / largest)
        beta = norm * (largest / unit / unit)
        # c² − ‖b‖² = Q and c‖b‖ = ‖β‖; the larger of the two has no cancellation.
        larger = np.sqrt((abs(q) + np.hypot(q, 2 * beta)) / 2)
        c_end, b_end = (larger, beta / larger) if q >= 0 else (beta / larger, larger)
        sign = np.sign(c) if c != 0 else np.sign(drive(model, start))
        c_end, w_end = sign * c_end, np.where(moves, sign * b_end * (target / largest / norm), w / unit)
    return State.from_vector(np.append(c_end, w_end) * unit, model.beta.size)


def _limit_without_target(c: float, w: Array, curvatures: Array, q: float) -> tuple[float, Array]:
    """β = 0: w_i = w_i(0) exp(−λ_i τ), τ = ∫c² dt, until c² = c(0)² − Σ w_i(0)² (1 − exp(−2λ_i τ)) is 0, if ever."""
    moves = curvatures > 0
    rates = curvatures[moves] / curvatures.max()
    end = np.where(moves, 0.0, w)

    def c_squared(tau: float) -> float:
        return float(c**2 + (w[moves] ** 2 * np.expm1(-2 * rates * tau)).sum())

    if q >= 0:
        return float(np.copysign(np.sqrt(q), c)), end
    late = 1.0
    while c_squared(late) > 0 and late < 1e300:
        late *= 2
    # Q below 0 by rounding alone: c² never gets there, and every weight that moves is gone.
    if c_squared(late) <= 0:
        tau = brentq(c_squared, 0.0, late, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps, maxiter=5000)
        end[moves] = w[moves] * np.exp(-rates * tau)
    return 0.0, end


def edge_amplitude(model: Model, state: State) -> Array:
    """Squared opposing weight of the oscillation at the edge of stability, s² = D/(αc) (T9), first pair."""
    return np.asarray(drive(model, state) / (model.alpha[0] * state.c))


def growth_factor(model: Model, state: State, lr: float) -> Array:
    """(..., J) factors 1 − ηα_jc² by which descent multiplies s_j in a step, exactly (T7).

    >>> growth_factor(Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [1.0]), lr=0.25)
    array([0.5])
    """
    return np.asarray(1 - lr * model.alpha * state.c[..., None] ** 2)


def predict(model: Model, start: State, lr: float, steps: int) -> Predictions:
    """Predicts a run of descent from the flow over the same stretch of time.

    Args:
        model: the model.
        start: weights at step 0.
        lr: step size η.
        steps: how many steps of descent the flow is followed for.

    Raises:
        InputError: lr or steps is not positive.
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    flow = gradient_flow(model, start, lr * np.arange(steps + 1), rtol=1e-10, atol=1e-12)
    layers = layer_sharpness(model, flow.state)
    limit = flow_limit(model, start)
    final = layer_sharpness(model, limit)
    crossing = _crossing_step(layers, flow.turning_time, lr)
    at_edge = None if crossing is None else flow.state.at(crossing)
    return Predictions(
        lr=lr,
        threshold=2 / lr,
        sharpness_start=float(layers.whole[0]),
        sharpness_lowest=float(layers.whole.min()),
        sharpness_final=float(final.whole),
        first_layer_start=float(layers.first[0]),
        first_layer_final=float(final.first),
        last_layer_start=float(layers.last[0]),
        last_layer_final=float(final.last),
        turning_time=flow.turning_time,
        crossing_step=crossing,
        growth=float(abs(growth_factor(model, limit, lr)[0])),
        amplitude=None if at_edge is None else float(edge_amplitude(model, at_edge)),
    )


def table(predictions: Predictions) -> str:
    """The predictions as aligned lines: symbol, meaning, value, statement."""
    rows = [
        ("2/η", "stability threshold", predictions.threshold, "T8"),
        ("λ(0)", "sharpness at the start", predictions.sharpness_start, "T2"),
        ("min λ", "lowest sharpness of the flow", predictions.sharpness_lowest, "T4"),
        ("λ(∞)", "final sharpness of the flow", predictions.sharpness_final, "T6"),
        ("αc²(0)", "first layer's sharpness at the start", predictions.first_layer_start, "T3"),
        ("αc²(∞)", "first layer's sharpness at the end", predictions.first_layer_final, "T3, T6"),
        ("‖b‖² + αs² (0)", "last layer's sharpness at the start", predictions.last_layer_start, "T3"),
        ("‖b‖² + αs² (∞)", "last layer's sharpness at the end", predictions.last_layer_final, "T3, T6"),
        ("t₁", "flow time at which c turns from falling to rising", predictions.turning_time, "T5"),
        ("step", "of crossing 2/η", predictions.crossing_step, "T8"),
        ("|1 − ηαc²|", "growth of the opposing weight a step, at the flow's limit", predictions.growth, "T7"),
        ("s² = D/(αc)", "amplitude at the edge of stability, at the crossing", predictions.amplitude, "T9"),
    ]
    cells = [(a, b, "never" if v is None else f"{v:.6g}", d) for a, b, v, d in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {v:>{widths[2]}}  ({d})" for a, b, v, d in cells)


def _crossing_step(layers: LayerSharpness, turning_time: float | None, lr: float) -> int | None:
    """First step at or after the turning point with sharpness of at least 2/η."""
    if turning_time is None:
        return None
    after = np.arange(layers.whole.size) >= turning_time / lr
    crossed = np.flatnonzero(after & (layers.whole >= 2 / lr))
    return int(crossed[0]) if crossed.size else None
