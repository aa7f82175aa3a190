"""The report of the main job and of the claims' own command: a table on the terminal, report.json, report.html."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.durable_files import write_durably
from validate.cifar10 import CLASSES, Images
from validate.claims import NetworkEvidence, Verdict
from validate.claims.c04_opposite_phase import same_label_phase
from validate.opposing_groups import OpposingPair, overlap, singular_pairs, top_change_pair
from validate.opposing_score import score_of_run
from validate.report_content import Report
from validate.report_page import page
from validate.report_words import interval_words, verdict_words


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
    """Writes report.json and report.html, each in one step."""
    groups = [
        {"network": part.evidence.kind, **_groups_of_seed(e, part.chosen)}
        for part in report.parts
        for e in part.evidence.networks
        if e.windows is not None and "base" in e.runs
    ]
    text = json.dumps(_as_json(report, groups), indent=2, allow_nan=False) + "\n"
    write_durably(folder / "report.json", text.encode())
    write_durably(folder / "report.html", page(report, groups).encode())


def _as_json(report: Report, groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "preset": report.preset,
        "every_claim_holds": all(v.holds for v in report.verdicts),
        "claims": [_claim_json(v) for v in report.verdicts],
        "predictions": None if report.predictions is None else report.predictions.as_dict(),
        "groups": groups,
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
        "judged": verdict.judged,
        "holds": verdict.holds,
        "reason": verdict.reason,
        "figure": claim.figure,
    }


def _groups_of_seed(evidence: NetworkEvidence, images: Images) -> dict[str, Any]:
    """The pairs found in the selection window of a seed, by both rules, with their labels."""
    assert evidence.windows is not None
    window = evidence.windows.select
    losses = evidence.run["loss"].values[window]
    pairs = singular_pairs(losses)
    step, top = top_change_pair(losses)
    return {
        "seed": evidence.seed,
        "crossing_step": evidence.windows.crossing,
        "singular_pairs": [_pair_json(pair, images) for pair in pairs],
        "top_20_rule": {"step": window.start + step, **_pair_json(top, images)},
        "overlap_of_rules": overlap(pairs[0], top),
        "same_label_phase": _number(same_label_phase(evidence, evidence.windows)),
        "opposing_score": _score_json(evidence),
    }


def _score_json(evidence: NetworkEvidence) -> dict[str, Any] | None:
    """The opposing-signal score of a seed's run, with its interval over resampled examples."""
    score = score_of_run(evidence.run, np.random.default_rng(evidence.seed))
    if score is None:
        return None
    return {"score": score.score, "interval_90": list(score.interval), "energy_share": score.energy}


def _pair_json(pair: OpposingPair, images: Images) -> dict[str, Any]:
    return {
        "strength": pair.strength,
        "energy_share": _number(pair.energy),
        "positive": pair.positive.tolist(),
        "positive_classes": _class_counts(pair.positive, images),
        "negative": pair.negative.tolist(),
        "negative_classes": _class_counts(pair.negative, images),
    }


def _class_counts(group: Any, images: Images) -> dict[str, int]:
    return dict(Counter(CLASSES[label] for label in images.labels[group]).most_common())


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [_number(v) for v in values]
