"""The report of the main job: a table on the terminal, report.json, and one self-contained report.html."""

from __future__ import annotations

import base64
import html
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from sim.durable_files import write_durably
from sim.runs import Run
from theory import Predictions
from theory.predictions import table as prediction_table
from validate.cifar10 import CLASSES, Images
from validate.claims import Evidence, NetworkEvidence, Verdict
from validate.claims.c04_opposite_phase import same_label_phase
from validate.opposing_groups import OpposingPair, overlap, singular_pairs, top_change_pair

REPORT_FIGURES = ("F1", "F8", "F9")
"""Figures that the report shows, in order."""

PAGE = Path(__file__).parent / "report_page.html"


@dataclass(frozen=True)
class Report:
    """Everything the report tells.

    Attributes:
        preset: name of the preset.
        predictions: the theory's predictions for the default two-layer model.
        evidence: what the claims were judged on.
        verdicts: the judged claims.
        runs: the runs behind them.
        figures: folder with the figures' PNG files and captions.
        images: the images the network was trained on.
    """

    preset: str
    predictions: Predictions
    evidence: Evidence
    verdicts: list[Verdict]
    runs: list[Run]
    figures: Path
    images: Images


def print_verdicts(verdicts: list[Verdict]) -> None:
    """Prints claim, statistic with interval, threshold, control with interval, and verdict, as a table."""
    header = ("claim", "statistic", "threshold", "control", "verdict")
    rows = [
        (v.claim.name, _interval(v.interval), str(v.claim.bound), _interval(v.control_interval), _verdict(v))
        for v in verdicts
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for v in verdicts:
        print(f"  {v.claim.name}: {v.claim.statement} [{v.claim.statistic}; control: {v.claim.control}]")


def write_report(folder: Path, report: Report) -> None:
    """Writes report.json and report.html, each in one step."""
    groups = [_groups_of_seed(e, report.images) for e in report.evidence.networks if e.windows is not None]
    text = json.dumps(_as_json(report, groups), indent=2, allow_nan=False) + "\n"
    write_durably(folder / "report.json", text.encode())
    write_durably(folder / "report.html", _page(report, groups).encode())


def _as_json(report: Report, groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "preset": report.preset,
        "every_claim_holds": all(v.holds for v in report.verdicts),
        "claims": [_claim_json(v) for v in report.verdicts],
        "predictions": report.predictions.as_dict(),
        "groups": groups,
        "runs": [{"name": r.name, "config": r.config, "environment": r.environment} for r in report.runs],
    }


def _claim_json(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "claim": claim.name,
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
        "same_label_phase": same_label_phase(evidence, evidence.windows),
    }


def _pair_json(pair: OpposingPair, images: Images) -> dict[str, Any]:
    return {
        "strength": pair.strength,
        "energy_share": None if math.isnan(pair.energy) else pair.energy,
        "positive": pair.positive.tolist(),
        "positive_classes": _class_counts(pair.positive, images),
        "negative": pair.negative.tolist(),
        "negative_classes": _class_counts(pair.negative, images),
    }


def _class_counts(group: Any, images: Images) -> dict[str, int]:
    return dict(Counter(CLASSES[label] for label in images.labels[group]).most_common())


def _page(report: Report, groups: list[dict[str, Any]]) -> str:
    failed = [v.claim.name for v in report.verdicts if v.failed]
    figures = "".join(_figure(report.figures, name) for name in REPORT_FIGURES)
    return Template(PAGE.read_text()).substitute(
        outcome="bad" if failed else "good",
        headline=_text(
            f"{', '.join(failed)} did not hold"
            if failed
            else f"All {len(report.verdicts)} claims hold, every control fails"
        ),
        preset=_text(report.preset),
        seeds=_text(", ".join(str(e.seed) for e in report.evidence.networks)),
        claims="".join(_claim_row(v) for v in report.verdicts),
        figures=figures,
        groups="".join(_group_row(g) for g in groups),
        predictions=_text(prediction_table(report.predictions)),
        runs="".join(_run_row(r) for r in report.runs),
    )


def _claim_row(verdict: Verdict) -> str:
    claim = verdict.claim
    mark = "holds" if verdict.holds else "fails"
    cells = (
        ("Claim", f"<b>{_text(claim.name)}</b> {_text(claim.statement)}"),
        ("Statistic", f"<b>{_text(_interval(verdict.interval))}</b> {_text(claim.statistic)}"),
        ("Threshold", _text(str(claim.bound))),
        ("Control", f"<b>{_text(_interval(verdict.control_interval))}</b> {_text(claim.control)}"),
        ("Verdict", f'<span class="{mark}">{_text(_verdict(verdict))}</span>'),
        ("Figure", f'<a href="#{_text(claim.figure)}">{_text(claim.figure)}</a>'),
    )
    return "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in cells) + "</tr>\n"


def _group_row(group: dict[str, Any]) -> str:
    rows = [(f"singular vector {i + 1}", p) for i, p in enumerate(group["singular_pairs"])]
    rows.append((f"top-20 rule, step {group['top_20_rule']['step']}", group["top_20_rule"]))
    out = ""
    for rule, pair in rows:
        energy = "" if pair["energy_share"] is None else f"{pair['energy_share']:.0%}"
        cells = (
            ("Seed", str(group["seed"])),
            ("Rule", rule),
            ("One group", _counts(pair["positive_classes"])),
            ("The other", _counts(pair["negative_classes"])),
            ("Energy", energy),
        )
        out += "<tr>" + "".join(f'<td data-name="{n}">{_text(c)}</td>' for n, c in cells) + "</tr>\n"
    return out


def _counts(classes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.items())


def _run_row(run: Run) -> str:
    environment = run.environment
    cells = (
        ("Run", run.name),
        ("Device", environment["device"]),
        ("Seconds", f"{environment['seconds']:.0f}"),
        ("Command", environment["command"]),
        ("Commit", environment["commit"] or "none"),
    )
    return "<tr>" + "".join(f'<td data-name="{n}">{_text(c)}</td>' for n, c in cells) + "</tr>\n"


def _figure(folder: Path, name: str) -> str:
    picture = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
    caption = _text((folder / f"{name}.txt").read_text().strip())
    return (
        f'<figure id="{name}"><img alt="{caption}" src="data:image/png;base64,{picture}">'
        f"<figcaption><b>{name}.</b> {caption}</figcaption></figure>\n"
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _verdict(verdict: Verdict) -> str:
    if not verdict.judged:
        return f"not judged: {verdict.reason}"
    return "holds" if verdict.holds else f"FAILS: {verdict.reason}"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undefined"
    return f"{low:.3g}" if low == high else f"{(low + high) / 2:.3g} [{low:.3g}, {high:.3g}]"


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values]
