"""Predicted curves over a run: the flow up to the crossing of 2/η, the state at the edge of stability after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.curvature import layer_sharpness
from theory.flow import gradient_flow
from theory.model import Model, State, drive, group_losses
from theory.symbolic import Array


@dataclass(frozen=True)
class Curves:
    """Predictions at every step; NaN where a curve does not apply.

    Attributes:
        step: (n,) steps 0…n−1.
        flow_c: (n,) last-layer weight of the flow at time η·step; likewise the sharpness and group losses below.
        sharpness: (n,) sharpness of the flow.
        first_layer: (n,) its first layer's block.
        last_layer: (n,) its last layer's block.
        first_share: (n,) share of the top eigenvector in the first layer.
        group_plus: (n,) loss of the outlier group with positive sign along the flow.
        group_minus: (n,) loss of the other.
        edge_amplitude: (n,) s² = D/(αc*) while c is held at c* = √(2/(ηα)), from the crossing on (T9).
        edge_correction: (n,) −Δ² ln D/(2g), its first relative correction.
        lr: step size η, and `crossing` the crossing's step, −1 without one, as arrays of no dimension.
        crossing: see `lr`.
        turning: flow time of c's turning point, NaN without one.
    """

    step: Array
    flow_c: Array
    sharpness: Array
    first_layer: Array
    last_layer: Array
    first_share: Array
    group_plus: Array
    group_minus: Array
    edge_amplitude: Array
    edge_correction: Array
    lr: Array
    crossing: Array
    turning: Array

    @property
    def crossing_step(self) -> int | None:
        """First step at or after the turning point at which the flow's sharpness reaches 2/η."""
        return None if self.crossing < 0 else int(self.crossing)

    @property
    def turning_time(self) -> float | None:
        """Flow time at which c turns from falling to rising."""
        return None if np.isnan(self.turning) else float(self.turning)

    def at_crossing(self, curve: Array) -> float | None:
        """Value of a curve at the crossing; None without one."""
        return None if self.crossing_step is None else float(curve[self.crossing_step])


def predicted_curves(model: Model, start: State, lr: float, steps: int, fraction: float) -> Curves:
    """Curves of a run of `steps` steps.

    Args:
        model: the model; the edge is that of its first opposing pair.
        start: weights at step 0.
        lr: step size η.
        steps: number of steps.
        fraction: p, the fraction of outliers, for the group losses.

    Raises:
        InputError: fraction is not positive, or the flow cannot be integrated.
    """
    flow = gradient_flow(model, start, lr * np.arange(steps + 1), rtol=1e-10, atol=1e-12)
    layers = layer_sharpness(model, flow.state)
    plus, minus = group_losses(model, flow.state, fraction)
    crossing = _crossing(layers.whole, flow.turning_time, lr)
    amplitude, correction = _edge(model, flow.state, lr, crossing)
    return Curves(
        step=np.arange(steps + 1, dtype=np.float64),
        flow_c=flow.state.c,
        sharpness=layers.whole,
        first_layer=layers.first,
        last_layer=layers.last,
        first_share=layers.first_share,
        group_plus=plus,
        group_minus=minus,
        edge_amplitude=amplitude,
        edge_correction=correction,
        lr=np.asarray(lr, dtype=np.float64),
        crossing=np.asarray(-1 if crossing is None else crossing),
        turning=np.asarray(np.nan if flow.turning_time is None else flow.turning_time),
    )


def _crossing(sharpness: Array, turning_time: float | None, lr: float) -> int | None:
    if turning_time is None:
        return None
    crossed = np.flatnonzero((np.arange(sharpness.size) >= turning_time / lr) & (sharpness >= 2 / lr))
    return int(crossed[0]) if crossed.size else None


def _edge(model: Model, flow: State, lr: float, crossing: int | None) -> tuple[Array, Array]:
    """The slow motion at the edge: c held at c*, b_{t+1} = b_t + ηc*Σ(β − c*b_t), in closed form; s² = D/(αc*)."""
    amplitude, correction = np.full(flow.c.size, np.nan), np.full(flow.c.size, np.nan)
    if crossing is None or not model.alpha.size or model.alpha[0] == 0:
        return amplitude, correction
    c = np.sqrt(2 / (lr * model.alpha[0]))
    count = flow.c.size - crossing
    # β − c*b_t = (1 − ηc*²Σ)^t (β − c*b_0)
    with np.errstate(over="ignore", invalid="ignore"):  # where an ordinary feature crosses 2/η, not the pair's
        decay = (1 - lr * c**2 * model.covariance) ** np.arange(count)[:, None]
        b = (model.beta - decay * (model.beta - c * flow.b[crossing])) / c
        d = drive(model, State(np.full(count, c), b, np.zeros((count, model.alpha.size))))
    positive = np.where(d > 0, d, np.nan)
    amplitude[crossing:] = positive / (model.alpha[0] * c)
    # −Δ² ln D/(2g), g = 4ηD/c*
    correction[crossing : flow.c.size - 2] = -np.diff(np.log(positive), 2) / (8 * lr * positive[:-2] / c)
    return amplitude, correction
