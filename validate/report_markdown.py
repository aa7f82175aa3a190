"""The claims as one table in Markdown, networks side by side, for notes and papers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from validate.claims import Verdict
from validate.claims.base import Bound
from validate.report_words import interval_words, short_words


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """Each cell: mean and interval of the statistic; the same of the control: verdict. Below it, how many hold."""
    if not verdicts:
        return "No claim was judged.\n"
    kinds = dict.fromkeys(v.kind for v in verdicts)
    of = {(v.claim.name, v.kind): v for v in verdicts}
    heads = [kind or "two-layer network" for kind in kinds]
    lines = [_row(["claim", "threshold", *heads]), _row(["---"] * (len(heads) + 2))]
    for claim in {v.claim.name: v.claim for v in verdicts}.values():
        cells = [_cell(of.get((claim.name, kind))) for kind in kinds]
        lines.append(_row([claim.name, str(claim.bound), *cells]))
    counts = []
    for kind, head in zip(kinds, heads, strict=True):
        judged = [v for v in verdicts if v.kind == kind and v.judged]
        by_control = [v.claim.name for v in judged if short_words(v) == "control does not fail"]
        alone = f" (by their control alone fail {', '.join(by_control)})" if by_control else ""
        counts.append(f"{head} {sum(v.holds for v in judged)} of {len(judged)}{alone}")
    together = [_not_told_apart([v for v in verdicts if v.kind == kind]) for kind in kinds if kind]
    lines += ["", f"Of the claims judged hold: {'; '.join(counts)}.", *filter(None, together)]
    return "\n".join(lines) + "\n"


def _not_told_apart(verdicts: Sequence[Verdict]) -> str:
    """Which statistics of a network differ from their controls, seed by seed, by nothing that is sure."""
    pairs = [(v.claim, *v.less_control) for v in verdicts if not isnan(v.less_control[0])]
    if not pairs:
        return ""
    alike = [claim.name for claim, low, high in pairs if low <= 0 <= high]
    against = [claim.name for claim, low, high in pairs if _control_does_more(claim.bound, low, high)]
    words = [f"; not in {', '.join(alike)}"] if alike else []
    words += [f"; the control does more in {', '.join(against)}"] if against else []
    return (
        f"{verdicts[0].kind}: statistic less control, seed by seed, is of one sign by its 90 % interval in "
        f"{len(pairs) - len(alike)} of {len(pairs)}{''.join(words)}."
    )


def _control_does_more(bound: Bound, low: float, high: float) -> bool:
    """Whether all of the difference is to the wrong side of a bound with one."""
    return (bound.high is None and high < 0) or (bound.low is None and low > 0)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if not verdict.judged:
        return verdict.reason
    words = f"**{short_words(verdict)}**" if verdict.holds else short_words(verdict)
    return f"{interval_words(verdict.interval)}; {interval_words(verdict.control_interval)}: {words}"
