"""What a relation is: hypotheses, statistics with bounds, a control in which they must miss them, a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from validate.claims.base import Bound
from validate.relations.configuration import KINDS, Configuration, Kind


@dataclass(frozen=True)
class Domain:
    """The configurations that a relation is stated for.

    Attributes:
        multiples: least and largest multiple of 2/λ; equal where the step size plays no part.
        kinds: kinds of network.
        activations: activations.
        without: kinds with activations that are left out.
    """

    multiples: tuple[float, float]
    kinds: tuple[Kind, ...] = KINDS
    activations: tuple[str, ...] = ("tanh", "gelu", "relu")
    without: tuple[tuple[Kind, str], ...] = ()

    def __contains__(self, config: Configuration) -> bool:
        low, high = self.multiples
        inside = low == high or low <= config.multiple <= high
        return inside and config.kind in self.kinds and config.activation in self.activations_of(config.kind)

    def activations_of(self, kind: Kind) -> tuple[str, ...]:
        """The activations of a kind of network."""
        return tuple(activation for activation in self.activations if (kind, activation) not in self.without)

    def __str__(self) -> str:
        networks = ", ".join(f"{kind} ({', '.join(self.activations_of(kind))})" for kind in self.kinds)
        low, high = self.multiples
        return networks if low == high else f"{networks}; multiple {low:g} to {high:g}"


@dataclass(frozen=True)
class Measurement:
    """What one small network showed.

    Attributes:
        statistics: the numbers that are judged, by the names of the relation's bounds; one that the network has not is
            left out.
        hypotheses: whether each hypothesis is met, by its words.
        numbers: what else a reader wants to see.
    """

    statistics: Mapping[str, float]
    hypotheses: Mapping[str, bool]
    numbers: Mapping[str, float] = field(default_factory=dict)


Measure = Callable[[Configuration], Measurement]


@dataclass(frozen=True)
class Relation:
    """A relation that theory predicts, conditional on its hypotheses.

    Attributes:
        name: its word on the command line.
        statement: what is predicted.
        domain: configurations that it is stated for, its first hypothesis.
        hypotheses: words of the others, as the measurement has them; where one is not met the example is vacuous.
        bounds: statistic → bound, fixed beforehand.
        control: the case in which every statistic must miss its bound, in words.
        measure: examines a configuration.
        measure_control: the same for the control.
        optional: statistics that some networks have not.
    """

    name: str
    statement: str
    domain: Domain
    hypotheses: tuple[str, ...]
    bounds: Mapping[str, Bound]
    control: str
    measure: Measure
    measure_control: Measure
    optional: tuple[str, ...] = ()

    def examine(self, config: Configuration) -> Examination:
        """Runs one example and judges it."""
        measured = self.measure(config)
        inside = {f"stated for {self.domain}": config in self.domain}
        return Examination(
            self, config, Measurement(measured.statistics, inside | dict(measured.hypotheses), measured.numbers)
        )

    def examine_control(self, config: Configuration) -> Examination:
        """The same for the control, whose hypotheses are not asked."""
        return Examination(self, config, self.measure_control(config))


@dataclass(frozen=True)
class Examination:
    """One example, judged.

    Attributes:
        relation: the relation.
        config: the example.
        measured: its numbers.
    """

    relation: Relation
    config: Configuration
    measured: Measurement

    @property
    def missed(self) -> tuple[str, ...]:
        """Statistics outside their bounds; one that is no number, or is not there and not optional, is outside."""
        seen = dict.fromkeys(set(self.relation.bounds) - set(self.relation.optional), float("nan"))
        seen |= self.measured.statistics
        return tuple(
            name
            for name, bound in self.relation.bounds.items()
            if name in seen and not bound.holds_for((seen[name], seen[name]))
        )

    @property
    def verdict(self) -> Literal["holds", "fails", "vacuous"]:
        """Vacuous where a hypothesis is not met, whatever the statistics."""
        if not all(self.measured.hypotheses.values()):
            return "vacuous"
        return "fails" if self.missed else "holds"

    @property
    def control_fails(self) -> bool:
        """For a control: every statistic is there, a number, but for optional ones, and misses its bound."""
        there = {name for name, value in self.measured.statistics.items() if not math.isnan(value)}
        return set(self.relation.bounds) - set(self.relation.optional) <= there and there <= set(self.missed)

    def __str__(self) -> str:
        met = [f"  {'met' if good else 'NOT MET':8}{words}" for words, good in self.measured.hypotheses.items()]
        judged = [
            f"  {value:<12.6g}{name}, bound {self.relation.bounds[name]}{' MISSED' if name in self.missed else ''}"
            for name, value in self.measured.statistics.items()
        ]
        seen = [f"  {value:<12.6g}{name}" for name, value in self.measured.numbers.items()]
        return "\n".join(["hypotheses", *met, "statistics", *judged, *(["also measured", *seen] if seen else [])])
