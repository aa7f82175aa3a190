"""How descent comes to the onset of the oscillation, and whether arithmetic of finite precision can follow it there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.curvature import sharpness
from theory.descent import gradient_descent
from theory.edge import EdgeUnits, edge_units
from theory.model import Model, State
from theory.onset import Onset, population_onset

NUDGE = 1e-13
"""Relative change of c(0) that must not move the onset: some hundred roundings of float64."""
LOST_LOG = -700.0
"""Least ln|s| that float64 holds in full."""


@dataclass(frozen=True)
class Arrival:
    """How descent comes to the onset of the pair that turns unstable first.

    Attributes:
        onset: of the population.
        nudged: the same from a start whose c differs by `NUDGE`; its horizon is a little past the onset.
        multiple: ηλ(0).
        units: of the state there (`theory.edge.edge_units`); None without an onset.
    """

    onset: Onset
    nudged: Onset
    multiple: float
    units: EdgeUnits | None

    @property
    def lost(self) -> str:
        """Why descent in float64 need not follow the population's onset, in words; empty where it does."""
        residue = self.onset.log_residue
        if residue < LOST_LOG:
            size = "0" if residue == -np.inf else f"e^({residue:.0f})"
            return f"s in float64's range, here {size} at the crossing: rounding decides whether anything oscillates"
        here, there = self.onset.step, self.nudged.step
        if here != there and (here is None or there is None or abs(here - there) > 1):
            moved = "none" if there is None else f"at {there}"
            return f"the same for c(0) that differs by {NUDGE:g}, here {moved}: rounding decides"
        return ""


def arrival(model: Model, start: State, lr: float, onset: Onset, steps: int) -> Arrival:
    """The arrival at an onset of the model's first pair, within so many steps."""
    units, horizon = None, steps
    if onset.step is not None:
        units = edge_units(model, gradient_descent(model, start, lr, max(onset.step, 1)).state.at(-1), lr)
        horizon = min(steps, onset.step + 100)
    nudged = State(start.c * (1 + NUDGE), start.b, start.s)
    again = population_onset(model, nudged, lr, max_steps=horizon)[0]
    return Arrival(onset, again, lr * float(sharpness(model, start)), units)
