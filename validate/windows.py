"""Stretches of steps that the claims look at, all counted from the first crossing of 2/η."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

BEFORE_BEGIN, BEFORE_END, BEFORE_STEPS = 130, 30, 20
SELECT_STEPS, EVALUATE_STEPS = 75, 75
EARLY_END = 100
EARLIEST_CROSSING = BEFORE_END + BEFORE_STEPS


@dataclass(frozen=True)
class Windows:
    """Half-open stretches of steps.

    Attributes:
        crossing: step of the first crossing of 2/η from below, as `first_crossing` has it.
        before: from 130 to 30 steps before the crossing, from the start on where there are fewer; at least 20 steps.
        select: the 75 steps from the crossing on, in which groups are chosen.
        evaluate: the 75 steps after those, in which the chosen groups are judged: choice and judgement share no step.
        edge: both.
        early: the first 100 steps; the first half of those before the crossing where that is less.
    """

    crossing: int
    before: slice
    select: slice
    evaluate: slice
    edge: slice
    early: slice


def first_crossing(run: xr.Dataset, earliest: int = EARLIEST_CROSSING) -> int | None:
    """First measured step, from `earliest` (50) on, with ηλ/2 ≥ 1 at the iterate and below 1 at the one before, if any.

    A network that starts above 2/η, or peaks above it in its first steps and falls back, does not get there by
    progressive sharpening, and leaves nothing to compare with before it.
    """
    steps, multiples = run["measured"].values, _multiples(run, "iterate")
    crossed = steps[1:][(multiples[1:] >= 1) & (multiples[:-1] < 1)]
    crossed = crossed[crossed >= earliest]
    return int(crossed[0]) if crossed.size else None


def reached_edge(run: xr.Dataset, earliest: int = EARLIEST_CROSSING) -> float | None:
    """Step, between measurements, at which iterates get to ηλ/2 = 1 and stay until step `earliest`, if any.

    For runs that are compared with another's crossing: `first_crossing` would take one that has crossed before
    `earliest`, and stays above, for one that never does. 0 for a run that starts above. Iterates, since a run at its
    edge hovers by midpoints at 2/η from below, and may swing for hundreds of steps without touching it.
    """
    return _reached(run["measured"].values, _multiples(run, "iterate"), earliest)


def floor_crossing(run: xr.Dataset, earliest: int = EARLIEST_CROSSING) -> float | None:
    """The same at midpoints of steps, near the valley's floor; at iterates where no midpoints were measured.

    Where activations have kinks the swing itself lifts iterates over 2/η, before the floor is there.
    """
    if "sharpness_midpoint" not in run:
        return reached_edge(run, earliest)
    return _reached(run["measured"].values + 0.5, _multiples(run, "midpoint"), earliest)


def _reached(steps: np.ndarray, multiples: np.ndarray, earliest: int) -> float | None:
    reached = np.flatnonzero((multiples >= 1) & (steps >= earliest))
    if not reached.size:
        return None
    below = np.flatnonzero(multiples[: reached[0]] < 1)
    if not below.size:
        return 0.0
    pair = slice(below[-1], below[-1] + 2)
    return float(np.interp(1, multiples[pair], steps[pair]))


def _multiples(run: xr.Dataset, place: str) -> np.ndarray:
    """ηλ/2 at the measured steps; a NaN is neither above nor below 1."""
    return np.asarray(run[f"sharpness_{place}"].values * run.attrs["lr"] / 2)


def find_windows(run: xr.Dataset) -> Windows | None:
    """The windows of a run; None where it never crosses, or ends too soon after."""
    crossing = first_crossing(run)
    if crossing is None:
        return None
    end = crossing + SELECT_STEPS + EVALUATE_STEPS
    if end > run.sizes["step"]:
        return None
    middle = crossing + SELECT_STEPS
    return Windows(
        crossing=crossing,
        before=slice(max(crossing - BEFORE_BEGIN, 0), crossing - BEFORE_END),
        select=slice(crossing, middle),
        evaluate=slice(middle, end),
        edge=slice(crossing, end),
        early=slice(0, min(EARLY_END, crossing // 2)),
    )


def why_no_windows(run: xr.Dataset) -> str | None:
    """Why a run has no windows, in words; None where it has some."""
    if find_windows(run) is not None:
        return None
    multiples = _multiples(run, "iterate")
    if (crossing := first_crossing(run)) is not None:
        late = crossing + SELECT_STEPS + EVALUATE_STEPS - run.sizes["step"]
        words = f"crosses 2/η at step {crossing} and ends {late} steps too soon"
    elif (at_edge := first_crossing(run, 0)) is not None:
        words = f"crosses 2/η at step {at_edge}, before step {EARLIEST_CROSSING}"
    elif multiples[0] >= 1:
        words = f"starts at {multiples[0]:.2g} times 2/η"
    else:
        words = f"comes to {np.nanmax(multiples):.2g} of 2/η at most"
    diverged = int(run.attrs.get("diverged_at", -1))
    return words if diverged < 0 else f"{words}, and diverges at step {diverged}"


def measured_in(run: xr.Dataset, name: str, window: slice) -> np.ndarray:
    """Measurements of a variable at the steps inside a window."""
    steps = run["measured"].values
    return np.asarray(run[name].values[(steps >= window.start) & (steps < window.stop)])
