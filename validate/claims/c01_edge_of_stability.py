"""C1: progressive sharpening, then hovering at 2/η."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.windows import Windows, measured_in

SHUFFLES = 500


def _sharpening(evidence: NetworkEvidence, windows: Windows) -> float:
    until = slice(0, windows.crossing)
    return float(spearmanr(measured_in(evidence.run, "sharpness_iterate", until), _steps(evidence, until))[0])


def _shuffled_sharpening(evidence: NetworkEvidence, windows: Windows) -> float:
    until = slice(0, windows.crossing)
    rng = np.random.default_rng(evidence.seed)
    values, steps = measured_in(evidence.run, "sharpness_iterate", until), _steps(evidence, until)
    return float(np.quantile([spearmanr(rng.permutation(values), steps)[0] for _ in range(SHUFFLES)], 0.95))


def _steps(evidence: NetworkEvidence, window: slice) -> np.ndarray:
    return measured_in(evidence.run, "measured", window)


def _hovering(evidence: NetworkEvidence, windows: Windows) -> float:
    values = measured_in(evidence.run, "sharpness_midpoint", windows.edge)
    return float(np.median(values) * evidence.run.attrs["lr"] / 2)


def _hovering_control(evidence: NetworkEvidence, windows: Windows) -> float:
    values = measured_in(evidence.control, "sharpness_midpoint", windows.edge)
    return float(np.median(values) * evidence.control.attrs["lr"] / 2)


CLAIMS = (
    Claim(
        name="C1a",
        statement="Progressive sharpening: the sharpness rises until it reaches 2/η.",
        statistic="Spearman correlation of λ with the step, before the crossing",
        bound=Bound(low=0.9),
        control="shuffled steps (95th percentile of 500 shuffles)",
        measure=each_seed(_sharpening),
        measure_control=each_seed(_shuffled_sharpening),
        figure="F9",
        needs=("base",),
    ),
    Claim(
        name="C1b",
        statement="Edge of stability: after the crossing the sharpness hovers at 2/η.",
        statistic="median of ηλ/2 at midpoints of steps, 150 steps from the crossing",
        bound=Bound(low=0.85, high=1.15),
        control="step size ÷ 10, same steps",
        measure=each_seed(_hovering),
        measure_control=each_seed(_hovering_control),
        figure="F9",
    ),
)
