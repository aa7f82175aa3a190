"""Orbits of the reduced map as traces, and as runs of a network that would show them."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from theory.alternation import alternating_part
from theory.reduced_map import ReducedMap
from validate.prediction.trace import Trace

EVERY = 5
"""Steps between measurements, as in an edge study."""


def trace_of_map(reduced: ReducedMap, x: float, excess: float, steps: int, lead: int = 10) -> Trace:
    """The orbit from (x, excess/η) as a trace whose predictions start `lead` steps after its first step."""
    xs, ys = reduced.iterate(x, excess / reduced.lr, steps)
    measured = np.arange(0, steps + 1, EVERY)
    alternating = xs.copy()
    alternating[1:-1] = alternating_part(xs)  # at the ends there is nothing to take it from
    visible = np.flatnonzero(np.abs(alternating) >= 0.5 * math.sqrt(reduced.rest_square))
    floor = 1.0 - 1e-4 * np.arange(steps + 1)
    a, b = (np.full(len(measured), value) for value in (reduced.a, reduced.b))
    return Trace(
        lr=reduced.lr,
        steps=np.arange(steps + 1) + 300,
        x=alternating,
        square=alternating**2,
        top_x=xs,
        loss=floor + xs**2 / reduced.lr,
        swing=np.abs(xs),
        measured=measured,
        excess=reduced.lr * ys[measured],
        top_excess=reduced.lr * ys[measured],
        a=a,
        b=b,
        bulk_x=np.full((steps + 1, 3), 1e-6),
        onset=int(visible[0]) if visible.size else None,
        onset_size=abs(float(alternating[visible[0]])) if visible.size else math.nan,
        losses_onset=int(visible[0]) if visible.size else None,
        start=lead // EVERY,
    )


def rising(g: float, lr: float, size: float = 1e-6, b: float = 50.0, after: int = 40) -> Trace:
    """An orbit that passes its threshold with an invisible oscillation, up to its first spike and some steps more."""
    reduced = ReducedMap(g / lr**2, b, lr)
    x = size * math.sqrt(reduced.rest_square)
    peaks, _ = reduced.peaks(x, -10 * g / lr, 1000)
    return trace_of_map(reduced, x, -10 * g, int(peaks[0]) + after)


def recorded(trace: Trace, sign: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Base run and edge study that show the trace's orbit along both directions, two groups swinging by its x."""
    lr, n = trace.lr, len(trace.steps)
    x = np.concatenate([trace.x, [trace.x[-1] * -(1 + trace.excess[-1])]])
    slope = -np.diff(x) / lr
    first = int(trace.steps[0])
    losses = np.ones((first + n, 60))
    losses[first:, :20] += trace.x[:, None]
    losses[first:, 20:40] -= trace.x[:, None]
    of = ("edge_measured",)
    edge = xr.Dataset(
        {
            "loss": (("edge_step", "example"), losses[first:]),
            "gradient_projection": (("edge_step", "direction"), np.stack([slope, 1e-9 * slope], axis=1)),
            "gradient_along_bounce": ("edge_step", sign * slope),
            "gradient_along_top": ("edge_step", -sign * slope),
            "eigenvalue": ("direction", np.array([2 / lr, 0.5 / lr])),
            "bounce_square": (of, trace.square[trace.measured]),
        },
        coords={"edge_step": trace.steps, "edge_measured": trace.steps[trace.measured]},
        attrs={"lr": lr},
    )
    for names, values in (
        (("sharpness", "bounce_curvature"), (2 + trace.excess) / lr),
        (("a_across", "bounce_a"), trace.a),
        (("b", "bounce_b"), trace.b),
    ):
        for name in names:
            edge[name] = of, values
    base = xr.Dataset({"loss": (("step", "example"), losses)}, attrs={"lr": lr})
    at = np.arange(0, first + n, 10)
    along = np.interp(at, trace.steps[trace.measured], trace.excess)
    base["sharpness_iterate"] = "measured", (2 + np.where(at < first, -1.0, along)) / lr
    return base.assign_coords(measured=at), edge
