"""What a statement is: hypotheses, claim, a derivation the program carries out, numeric checks, a status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import sympy as sp

from theory.model import Model, State


class Status(StrEnum):
    """How far a statement is settled."""

    PROVED = "proved"
    """Its derivation is complete, up to standard theorems that it names."""
    CHECKED = "checked"
    """Derived to the stated order, or seen numerically; the error left is stated."""
    CORRECTED = "corrected"
    """False as first written; the counterexample and what holds, proved or checked, stand in its place."""


@dataclass(frozen=True)
class Step:
    """One line of a derivation: two expressions that are equal, and why.

    Attributes:
        text: what the line says, in words; it may carry an argument that algebra cannot.
        left: left side.
        right: right side; sympy must reduce left − right to zero.
        reduce: brings an expression to the form in which the two sides are compared, where `expand` and `simplify`
            alone would not do or would take minutes.
    """

    text: str
    left: sp.Expr
    right: sp.Expr
    reduce: Callable[[sp.Expr], sp.Expr] | None = None

    def residual(self) -> sp.Expr:
        """Left − right, reduced by sympy now; zero when the step is right."""
        left, right = (self.left, self.right) if self.reduce is None else map(self.reduce, (self.left, self.right))
        difference = sp.expand(left - right)
        return difference if difference == 0 else sp.simplify(difference)


@dataclass(frozen=True)
class Check:
    """One numeric check, with a control in which it must fail.

    Attributes:
        quantity: what is measured, in words.
        value: what was measured.
        bound: largest value allowed, fixed in code.
        control: the same quantity with the formula broken on purpose; it must exceed the bound.
        control_text: how it was broken.
    """

    quantity: str
    value: float
    bound: float
    control: float
    control_text: str

    @property
    def holds(self) -> bool:
        """The value meets the bound and the control misses it; NaN never holds."""
        return self.value <= self.bound < self.control


@dataclass(frozen=True)
class Statement:
    """One statement of the theory.

    Attributes:
        name: T1, T2, …
        title: a few words.
        hypotheses: in words and symbols.
        claim: in words and symbols.
        status: how far it is settled.
        source: where it comes from: the paper, the setting's notes, or derived here.
        applies: the hypotheses as a predicate on model, state and step size.
        derivation: makes the steps; sympy carries each out when it is asked for.
        check: runs the numeric checks, in seconds.
        remarks: what the reader should also know: what was refuted, what is open, how large the error is.
    """

    name: str
    title: str
    hypotheses: str
    claim: str
    status: Status
    source: str
    applies: Callable[[Model, State, float], bool]
    derivation: Callable[[], Sequence[Step]]
    check: Callable[[], Sequence[Check]]
    remarks: str = ""
