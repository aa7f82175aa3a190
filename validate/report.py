"""The report of the main job and of the claims' own command: on the terminal, report.json, report.html, claims.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.durable_files import write_durably
from validate.claims import Verdict
from validate.report_content import Report
from validate.report_groups import groups_json, stability_json
from validate.report_markdown import claims_markdown
from validate.report_page import page
from validate.report_words import finite_or_none, interval_words, verdict_words


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Prints claim, statistic with interval, threshold, control with interval, and verdict, as a table."""
    several = len({v.kind for v in verdicts if v.kind}) > 1
    header = ("claim", *(("network",) if several else ()), "statistic", "threshold", "control", "verdict")
    rows = [
        (
            v.claim.name,
            *((v.kind,) if several else ()),
            interval_words(v.interval),
            str(v.claim.bound),
            interval_words(v.control_interval),
            verdict_words(v),
        )
        for v in verdicts
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for claim in {v.claim.name: v.claim for v in verdicts}.values():
        print(f"  {claim.name}: {claim.statement} [{claim.statistic}; control: {claim.control}]")


def write_report(folder: Path, report: Report) -> None:
    """Writes report.json, report.html and claims.md, each in one step."""
    groups = [group for part in report.parts for group in groups_json(part)]
    stable = [found for part in report.parts if (found := stability_json(part)) is not None]
    text = json.dumps(_as_json(report, groups, stable), indent=2, allow_nan=False) + "\n"
    write_durably(folder / "report.json", text.encode())
    write_durably(folder / "claims.md", claims_markdown(report.verdicts).encode())
    write_durably(folder / "report.html", page(report, groups, stable).encode())


def _as_json(report: Report, groups: list[dict[str, Any]], stable: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "preset": report.preset,
        "every_judged_claim_holds": not report.failed,
        "claims_not_judged": sum(not v.judged for v in report.verdicts),
        "claims": [_claim_json(v) for v in report.verdicts],
        "predictions": None if report.predictions is None else report.predictions.as_dict(),
        "groups": groups,
        "stability": stable,
        "runs": [{"name": r.name, "config": r.config, "environment": r.environment} for r in report.runs],
    }


def _claim_json(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "claim": claim.name,
        "network": verdict.kind,
        "statement": claim.statement,
        "statistic": claim.statistic,
        "threshold": {"low": claim.bound.low, "high": claim.bound.high},
        "values": _numbers(verdict.values),
        "interval_90": _numbers(verdict.interval),
        "control": claim.control,
        "control_values": _numbers(verdict.control_values),
        "control_interval_90": _numbers(verdict.control_interval),
        "less_control_90": _numbers(verdict.less_control),
        "judged": verdict.judged,
        "holds": verdict.holds,
        "reason": verdict.reason,
        "figure": claim.figure,
    }


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [finite_or_none(v) for v in values]
