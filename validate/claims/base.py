"""What a claim is: a statistic, a threshold fixed in code, a control in which it must fail, an interval, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from validate.windows import Windows, why_no_windows

CONFIDENCE = 0.90
"""Of the two-sided interval; each bound is thereby tested at 95 %."""


@dataclass(frozen=True)
class NetworkEvidence:
    """The runs of one seed, all from the same initial weights.

    Attributes:
        seed: seed of the initial weights.
        runs: role → run; `validate.roles.ROLES` says what the roles are.
        windows: stretches of steps of the base run before the crossing and at the edge; None where it never crosses.
        impossible: roles that are derived from a base run with windows, where it has none.
    """

    seed: int
    runs: Mapping[str, xr.Dataset]
    windows: Windows | None
    impossible: frozenset[str] = frozenset()

    @property
    def run(self) -> xr.Dataset:
        """The base run: plain gradient descent at the step size in question."""
        return self.runs["base"]

    @property
    def control(self) -> xr.Dataset:
        """The run at a tenth of that step size."""
        return self.runs["gentle"]


@dataclass(frozen=True)
class Evidence:
    """Everything that the claims are judged on.

    Attributes:
        networks: one entry a seed, all of one kind of network.
        two_layer: runs of the two-layer network by name, each with its configuration.
        kind: kind of the network, as `sim.networks.Architecture` names it.
    """

    networks: Sequence[NetworkEvidence] = ()
    two_layer: Mapping[str, tuple[Any, xr.Dataset]] = field(default_factory=dict)
    kind: str = "mlp"

    def missing(self, claim: Claim) -> list[str]:
        """What a claim needs and is not here, in words; roles that some seed lacks, and could have, are missing."""
        there = [{*e.runs, *e.impossible} for e in self.networks]
        roles = [role for role in claim.needs if not there or any(role not in of_seed for of_seed in there)]
        return roles + [f"two-layer {name}" for name in claim.simulations if name not in self.two_layer]

    def has_impossible(self, claim: Claim) -> bool:
        """Whether a claim needs a run that a seed cannot have, so that its statistic has no value there."""
        return any(role in e.impossible for e in self.networks for role in claim.needs)


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
        needs: roles of the runs that the two measures read; none for a statement on the two-layer network.
        simulations: names of the two-layer runs that they read.
        networks: kinds of network that it is claimed for; all when None.
    """

    name: str
    statement: str
    statistic: str
    bound: Bound
    control: str
    measure: Callable[[Evidence], Sequence[float]]
    measure_control: Callable[[Evidence], Sequence[float]]
    figure: str
    needs: tuple[str, ...] = ("base", "gentle")
    simulations: tuple[str, ...] = ()
    networks: tuple[str, ...] | None = None

    def claimed_for(self, kind: str) -> bool:
        """Whether it is claimed for a kind of network; a statement on the two-layer network is for none."""
        return bool(self.needs) and (self.networks is None or kind in self.networks)


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
        reason: why it does not hold or was not judged; empty when it holds.
        judged: whether there was evidence to judge it on; what was not judged does not hold, and has not failed.
        kind: kind of the network it was judged on; empty for the two-layer network.
    """

    claim: Claim
    values: tuple[float, ...]
    interval: tuple[float, float]
    control_values: tuple[float, ...]
    control_interval: tuple[float, float]
    holds: bool
    reason: str
    judged: bool = True
    kind: str = ""

    @property
    def failed(self) -> bool:
        """Judged, and does not hold."""
        return self.judged and not self.holds

    @property
    def less_control(self) -> tuple[float, float]:
        """90 % interval of statistic less control, paired over a network's seeds; NaN where there are no pairs.

        No verdict reads it. A control that does not fail may yet be told apart from the statistic, seed by seed: then
        the bound lies at the control, not the statistic.
        """
        if not self.kind or len(self.values) != len(self.control_values) or len(self.values) < 2:
            return float("nan"), float("nan")
        return mean_interval([a - b for a, b in zip(self.values, self.control_values, strict=True)])


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Measures a claim and its control and compares both with the bound.

    A claim whose runs are not all there is not judged; nor is one on a kind of network that it is not claimed for. One
    that has no value on some seed, as where its base run does not cross 2/η, is judged, and does not hold.
    """
    kind = evidence.kind if claim.needs else ""
    if claim.needs and not claim.claimed_for(kind):
        return _not_judged(claim, kind, f"not claimed for {kind}")
    if missing := evidence.missing(claim):
        return _not_judged(claim, kind, f"needs {', '.join(missing)}")
    if evidence.has_impossible(claim):
        values = control_values = (float("nan"),) * len(evidence.networks)
    else:
        values = tuple(float(v) for v in claim.measure(evidence))
        control_values = tuple(float(v) for v in claim.measure_control(evidence))
    interval, control_interval = mean_interval(values), mean_interval(control_values)
    if not np.isfinite(interval).all():
        reason = "the statistic is not defined for every seed" + _without_windows(evidence, claim)
    elif claim.needs and len(values) == 1:
        return _not_judged(claim, kind, "one seed has no interval")
    elif not claim.bound.holds_for(interval):
        reason = f"the interval leaves {claim.bound}"
    elif not np.isfinite(control_interval).all():
        reason = "the control is not defined for every seed"
    elif not claim.bound.fails_for(control_interval):
        reason = "the control does not fail"
    else:
        reason = ""
    return Verdict(claim, values, interval, control_values, control_interval, not reason, reason, kind=kind)


def _without_windows(evidence: Evidence, claim: Claim) -> str:
    """Seeds whose base run has no windows at 2/η, each with the reason."""
    if "base" not in claim.needs:
        return ""
    runs = {e.seed: e.run for e in evidence.networks if e.windows is None and "sharpness_iterate" in e.run}
    words = [f"seed {seed} {why}" for seed, run in runs.items() if (why := why_no_windows(run)) is not None]
    return f": {'; '.join(words)}" if words else ""


def _not_judged(claim: Claim, kind: str, reason: str) -> Verdict:
    undefined = float("nan"), float("nan")
    return Verdict(claim, (), undefined, (), undefined, holds=False, reason=reason, judged=False, kind=kind)


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
