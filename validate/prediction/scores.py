"""How well predictions meet what was measured: R² over a constant, relative error, intervals over seeds, controls.

Runs of one seed at several step sizes begin at the same weights: a seed, with all its runs, is one trial, and intervals
are Student's over seeds. Since the step size alone says much (waits and variances spread threefold with it), a
prediction is also compared with what the other seeds did at the same step size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from validate.claims.base import mean_interval
from validate.prediction.quantities import Point, Quantity

Array = npt.NDArray[np.float64]

LEAST_DEFINED = 0.8
"""Share of the runs in which a quantity has to have a prediction and a measurement."""
SAME = 1e-9
"""Relative spread of what was measured, up to which it is one number and no constant can be bettered."""


@dataclass(frozen=True)
class PredictedRun:
    """The predictions of one run.

    Attributes:
        network: name of the network.
        lr: step size η.
        seed: seed of the initial weights.
        name: name of the run's folder.
        points: quantity → its points.
    """

    network: str
    lr: float
    seed: int
    name: str
    points: Mapping[str, Sequence[Point]]


@dataclass(frozen=True)
class Score:
    """How well a quantity is predicted over runs.

    Attributes:
        quantity: the quantity.
        runs: number of runs with a prediction and a measurement.
        points: number of such points in them.
        undefined: number of runs that have none.
        seeds: number of seeds of the runs that have.
        r2: 1 − Σ(measured − predicted)²/Σ(measured − their mean)², of logarithms where the quantity says so: above 0 is
            better than the best constant.
        r2_interval: 90 % interval, Student's over the seeds' parts of it.
        error: median of |predicted/measured − 1|.
        error_interval: 90 % interval of the mean of the seeds' medians, Student's.
        ratio: median of predicted over measured.
        skill: 1 − Σ(measured − predicted)²/Σ(measured − what the other seeds' runs at the step size measured, mean)²:
            above 0 is better than knowing them; NaN without another seed at it.
        skill_interval: 90 % interval, Student's over the seeds' parts of it.
        permuted_r2: R² with every run's predictions taken from the runs of other step sizes in turn; NaN with one step
            size alone.
        permuted_error: median relative error of the same.
        direction_r2: R² of the control in another direction; NaN without one.
    """

    quantity: Quantity
    runs: int
    points: int
    undefined: int
    seeds: int
    r2: float
    r2_interval: tuple[float, float]
    error: float
    error_interval: tuple[float, float]
    ratio: float
    skill: float
    skill_interval: tuple[float, float]
    permuted_r2: float
    permuted_error: float
    direction_r2: float

    @property
    def reason(self) -> str:
        """Why the quantity is not predicted; empty where it is."""
        of = self.quantity
        if self.seeds < 2:
            return "fewer than two seeds"
        if self.runs < LEAST_DEFINED * (self.runs + self.undefined):
            return f"told or seen in {self.runs} of {self.runs + self.undefined} runs"
        if not self.error_interval[1] <= of.largest_error:
            return f"relative error not surely at most {of.largest_error:g}"
        if not self.r2_interval[0] >= of.least_r2:
            return f"R² not surely at least {of.least_r2:g}"
        if not self.skill_interval[0] > 0:
            return "not surely better than the other seeds' mean at the step size"
        if not self.permuted_r2 < of.least_r2:
            return "permuted predictions do not fail"
        if of.control and not self.direction_r2 < of.least_r2:
            return "the control in other directions does not fail"
        return ""


def score(quantity: Quantity, runs: Sequence[PredictedRun]) -> Score:
    """Scores a quantity over runs of one network, at several step sizes."""
    tables = [_table(run.points.get(quantity.name, ()), quantity) for run in runs]
    kept = [(run, table) for run, table in zip(runs, tables, strict=True) if len(table)]
    of_runs = [table for _, table in kept]
    seeds = sorted({run.seed for run, _ in kept})
    by_seed = [[table[:, :2] for run, table in kept if run.seed == seed] for seed in seeds]
    others = _of_other_seeds(kept, quantity.logarithmic)
    skills = [[t for run, t in others if run.seed == seed] for seed in sorted({run.seed for run, _ in others})]
    permuted = _permuted(kept)
    direction = [t[np.isfinite(t[:, 2:]).all(1), 2:] for t in of_runs]
    return Score(
        quantity=quantity,
        runs=len(kept),
        points=sum(map(len, of_runs)),
        undefined=len(runs) - len(kept),
        seeds=len(by_seed),
        r2=r_squared(of_runs, quantity.logarithmic),
        r2_interval=_over_seeds(_parts(by_seed, quantity.logarithmic)),
        error=relative_error(of_runs),
        error_interval=_over_seeds([relative_error(tables) for tables in by_seed]),
        ratio=float(np.median(_ratios(of_runs))) if of_runs else float("nan"),
        skill=float(np.mean(parts)) if (parts := _parts(skills, quantity.logarithmic)) else float("nan"),
        skill_interval=_over_seeds(parts),
        permuted_r2=r_squared(permuted, quantity.logarithmic),
        permuted_error=relative_error(permuted),
        direction_r2=r_squared([t for t in direction if len(t)], quantity.logarithmic),
    )


def r_squared(tables: Sequence[Array], logarithmic: bool) -> float:
    """R² of predictions over the best constant: 1 − Σ(m − p)²/Σ(m − mean m)².

    Args:
        tables: (points, at least 2) predicted and measured, a table a run.
        logarithmic: of their logarithms.

    Returns:
        R²; NaN without points, or where what was measured is one number.

    >>> r_squared([np.array([[1.0, 1.0], [3.0, 2.0]])], logarithmic=False)
    -1.0
    """
    parts = _parts([[table[:, :2] for table in tables]], logarithmic)
    return float(np.mean(parts)) if parts else float("nan")


def _parts(by_seed: Sequence[Sequence[Array]], logarithmic: bool) -> list[float]:
    """Each seed's part of R², whose mean over seeds it is: 1 − S Σ(m − p)² of its own/Σ(m − reference)² of all S seeds.

    Args:
        by_seed: tables of each seed's runs, (points, at least 2) predicted and measured; the reference is the mean of
            all measured, or the third column where the tables have three.
        logarithmic: of their logarithms.

    Returns:
        A part a seed; none without points, or where what was measured is the reference.
    """
    if not any(len(tables) for tables in by_seed):
        return []
    scaled = np.log if logarithmic else np.asarray
    seeds = [scaled(np.concatenate(list(tables))) for tables in by_seed]
    measured = np.concatenate([table[:, 1] for table in seeds])
    of_third = seeds[0].shape[1] == 3
    reference = np.concatenate([table[:, 2] for table in seeds]) if of_third else measured.mean()
    whole = float(((measured - reference) ** 2).sum())
    if not np.sqrt(whole) > SAME * np.abs(measured).max():
        return []
    return [1 - len(seeds) * float(((table[:, 1] - table[:, 0]) ** 2).sum()) / whole for table in seeds]


def relative_error(tables: Sequence[Array]) -> float:
    """Median of |predicted/measured − 1|."""
    return float(np.median(np.abs(_ratios(tables) - 1))) if tables else float("nan")


def _ratios(tables: Sequence[Array]) -> Array:
    """Predicted over measured of every point: 1 where both are 0, infinite where the measured one alone is."""
    predicted, measured = np.concatenate([t[:, :2] for t in tables]).T
    nought = measured == 0
    return np.where(nought, np.where(predicted == 0, 1.0, np.inf), predicted / np.where(nought, 1.0, measured))


def _table(points: Sequence[Point], quantity: Quantity) -> Array:
    """(points, 4) predicted, measured, and the control's two, where the first two are known."""
    table = np.array([(p.predicted, p.measured, *p.control) for p in points], dtype=np.float64).reshape(-1, 4)
    known = np.isfinite(table[:, :2]).all(1)
    if quantity.logarithmic:
        known &= (table[:, :2] > 0).all(1)
    return np.asarray(table[known])


def _permuted(kept: Sequence[tuple[PredictedRun, Array]]) -> list[Array]:
    """Every run's measurements beside the predictions of every run of another step size, in turn."""
    return [
        np.stack([np.resize(other[:, 0], len(own)), own[:, 1]], axis=1)
        for run, own in kept
        for of_other, other in kept
        if of_other.lr != run.lr
    ]


def _of_other_seeds(kept: Sequence[tuple[PredictedRun, Array]], logarithmic: bool) -> list[tuple[PredictedRun, Array]]:
    """Every run's predictions and measurements, and the mean (of logarithms) measured by other seeds at its step size.

    Runs at whose step size there is no other seed are left out.
    """
    found = []
    for run, own in kept:
        others = [t[:, 1] for other, t in kept if other.lr == run.lr and other.seed != run.seed]
        if others:
            values = np.concatenate(others)
            mean = np.exp(np.log(values).mean()) if logarithmic else values.mean()
            found.append((run, np.column_stack([own[:, :2], np.full(len(own), mean)])))
    return found


def _over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean; NaN with fewer than two."""
    return mean_interval(values) if len(values) > 1 else (float("nan"), float("nan"))
