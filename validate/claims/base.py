"""What a claim is: a statistic, a threshold fixed in code, a control in which it must fail, an interval, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from validate.windows import Windows

CONFIDENCE = 0.90
"""Of the two-sided interval; each bound is thereby tested at 95 %."""


@dataclass(frozen=True)
class NetworkEvidence:
    """One seed's run, and the run that serves as its control.

    Attributes:
        seed: seed of the initial weights, the same in both.
        run: the run at the step size in question.
        control: the run at a tenth of it.
        windows: stretches of steps before the crossing and at the edge; None where the run never crosses.
    """

    seed: int
    run: xr.Dataset
    control: xr.Dataset
    windows: Windows | None


@dataclass(frozen=True)
class Evidence:
    """Everything that the claims are judged on.

    Attributes:
        networks: one entry a seed.
        two_layer: runs of the two-layer network by name, each with its configuration.
    """

    networks: Sequence[NetworkEvidence]
    two_layer: dict[str, tuple[Any, xr.Dataset]]


@dataclass(frozen=True)
class Bound:
    """Values for which a claim holds: from `low` to `high`, either end open when None."""

    low: float | None = None
    high: float | None = None

    def holds_for(self, interval: tuple[float, float]) -> bool:
        """Whether the whole interval lies inside."""
        return self._above_low(interval[0]) and self._below_high(interval[1])

    def fails_for(self, interval: tuple[float, float]) -> bool:
        """Whether the whole interval lies outside."""
        return not self._above_low(interval[1]) or not self._below_high(interval[0])

    def __str__(self) -> str:
        if self.low is None:
            return f"≤ {self.high:g}"
        return f"≥ {self.low:g}" if self.high is None else f"{self.low:g} … {self.high:g}"

    def _above_low(self, value: float) -> bool:
        return self.low is None or value >= self.low

    def _below_high(self, value: float) -> bool:
        return self.high is None or value <= self.high


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        name: number of the claim or statement, such as C3 or T7.
        statement: what is claimed.
        statistic: what is measured, in words.
        bound: the threshold, fixed before the run.
        control: the case in which the statistic must fall outside the bound, in words.
        measure: values of the statistic, one a seed or sample; NaN where it is not defined.
        measure_control: the same for the control.
        figure: the figure that shows it.
    """

    name: str
    statement: str
    statistic: str
    bound: Bound
    control: str
    measure: Callable[[Evidence], Sequence[float]]
    measure_control: Callable[[Evidence], Sequence[float]]
    figure: str


@dataclass(frozen=True)
class Verdict:
    """A claim, judged.

    Attributes:
        claim: the claim.
        values: the statistic, one value a seed or sample.
        interval: 90 % interval of its mean.
        control_values: the control's values.
        control_interval: their 90 % interval.
        holds: the interval lies inside the bound and the control's outside.
        reason: why it does not hold; empty when it does.
    """

    claim: Claim
    values: tuple[float, ...]
    interval: tuple[float, float]
    control_values: tuple[float, ...]
    control_interval: tuple[float, float]
    holds: bool
    reason: str


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Measures a claim and its control and compares both with the bound."""
    values = tuple(float(v) for v in claim.measure(evidence))
    control_values = tuple(float(v) for v in claim.measure_control(evidence))
    interval, control_interval = mean_interval(values), mean_interval(control_values)
    if not np.isfinite(interval).all():
        reason = "the statistic is not defined for every seed"
    elif not claim.bound.holds_for(interval):
        reason = f"the interval leaves {claim.bound}"
    elif not np.isfinite(control_interval).all():
        reason = "the control is not defined for every seed"
    elif not claim.bound.fails_for(control_interval):
        reason = "the control does not fail"
    else:
        reason = ""
    return Verdict(claim, values, interval, control_values, control_interval, not reason, reason)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """90 % Student interval of the mean; the value itself when there is one, NaN when one is not finite.

    >>> mean_interval([0.5])
    (0.5, 0.5)
    """
    if not values or not np.isfinite(values).all():
        return float("nan"), float("nan")
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, mean
    half = float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean - half, mean + half


def each_seed(measure: Callable[[NetworkEvidence, Windows], float]) -> Callable[[Evidence], Sequence[float]]:
    """A statistic of one seed as a statistic of all; NaN for a seed whose run never crosses."""

    def over(evidence: Evidence) -> list[float]:
        return [float("nan") if e.windows is None else measure(e, e.windows) for e in evidence.networks]

    return over
