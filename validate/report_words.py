"""How reports put verdicts, intervals and numbers into words, the same on the terminal, on the page and in JSON."""

from __future__ import annotations

import math

from validate.claims import Verdict


def verdict_words(verdict: Verdict) -> str:
    """Holds, FAILS or not judged, with the reason."""
    if not verdict.judged:
        return f"not judged: {verdict.reason}"
    return "holds" if verdict.holds else f"FAILS: {verdict.reason}"


def short_words(verdict: Verdict) -> str:
    """The verdict in a cell: what fails by its control alone, or has no value, is told from what fails itself."""
    if not verdict.judged:
        return "not judged"
    if verdict.holds:
        return "holds"
    if not all(map(math.isfinite, verdict.interval)):
        return "undefined"
    return "control does not fail" if verdict.claim.bound.holds_for(verdict.interval) else "fails"


def finite_or_none(value: float) -> float | None:
    """A number as JSON has it."""
    return float(value) if math.isfinite(value) else None


def interval_words(interval: tuple[float, float]) -> str:
    """Mean and interval, or the single value.

    >>> interval_words((0.5, 1.5))
    '1 [0.5, 1.5]'
    """
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undefined"
    return f"{low:.3g}" if low == high else f"{(low + high) / 2:.3g} [{low:.3g}, {high:.3g}]"
