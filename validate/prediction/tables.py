"""The predictions in lines and in JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.durable_files import write_durably
from validate.prediction.layers import LayerScore
from validate.prediction.scores import PredictedRun, Score
from validate.report_words import finite_or_none


@dataclass(frozen=True)
class NetworkPredictions:
    """The predictions of one network's runs, and their scores.

    Attributes:
        network: its name.
        runs: a run each, in the order of step sizes and seeds.
        without: names of runs that have no windows at 2/η, or no study.
        scores: a quantity each.
        layers: an event each.
    """

    network: str
    runs: Sequence[PredictedRun]
    without: Sequence[str]
    scores: Sequence[Score]
    layers: Sequence[LayerScore]


PER_RUN = (
    ("wait", "wait"),
    ("wait for the losses", "wait, losses"),
    ("spike from onset", "spike x²"),
    ("loss rise from onset", "loss rise"),
    ("variance ahead", "x² ahead"),
    ("period", "period"),
    ("spike of the line", "spike, line"),
    ("loss rise of the line", "loss, line"),
    ("steps to the spike", "steps, line"),
)
"""Quantities of one point a run, and the heads of their columns, which stand where any run has one."""


def run_table(runs: Sequence[PredictedRun]) -> str:
    """Predicted/measured of every run, a line each."""
    columns = [(name, head) for name, head in PER_RUN if any(run.points.get(name) for run in runs)]
    lines = [f"  {'step size':>9} {'seed':>5}" + "".join(f"{head + ', told/seen':>24}" for _, head in columns)]
    for run in runs:
        points = [run.points.get(name) for name, _ in columns]
        cells = [f"{_number(p[0].predicted)}/{_number(p[0].measured)}" if p else "–" for p in points]
        lines.append(f"  {run.lr:9g} {run.seed:5}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def score_table(scores: Sequence[Score]) -> str:
    """A quantity a line: R², relative error, ratio, controls, verdict."""
    lines = [
        f"  {'quantity':23}{'runs':>5}{'points':>7}  {'R² over a constant':24}{'relative error':24}"
        f"{'told/seen':>10}  {'R² over other seeds':24}{'permuted R²':>12}{'bulk R²':>9}"
    ]
    for s in scores:
        lines.append(
            f"  {s.quantity.name:23}{s.runs:5}{s.points:7}  {_with_interval(s.r2, s.r2_interval):24}"
            f"{_with_interval(s.error, s.error_interval):24}{_number(s.ratio):>10}  "
            f"{_with_interval(s.skill, s.skill_interval):24}{_number(s.permuted_r2):>12}"
            f"{_number(s.direction_r2):>9}  {s.reason or 'predicted'}"
        )
    return "\n".join(lines)


def layer_table(scores: Sequence[LayerScore]) -> str:
    """An event a line: what theory says, in how many runs it is so, and with the layers exchanged."""
    lines = [f"  {'event':50}{'seen':24}{'theory':>8}{'as told':>9}{'exchanged':>10}"]
    for s in scores:
        told = {True: "yes", False: "no", None: "divided"}[s.predicted]
        shares = "" if s.predicted is None else f"{s.share:9.0%}{s.control:10.0%}"
        lines.append(f"  {s.event:50}{s.start:24}{told:>8}{shares:19}  {s.reason or 'predicted'}")
    return "\n".join(lines)


def write_json(path: Path, parts: Sequence[NetworkPredictions]) -> None:
    """Every number of every run and score."""
    text = json.dumps([_plain(part) for part in parts], indent=1, ensure_ascii=False) + "\n"
    write_durably(path, text.encode())


def _plain(part: NetworkPredictions) -> dict[str, Any]:
    return {
        "network": part.network,
        "without_windows": list(part.without),
        "scores": [
            {
                "quantity": s.quantity.name,
                "formula": s.quantity.formula,
                "known": s.quantity.known,
                "logarithmic": s.quantity.logarithmic,
                "thresholds": {"r2": s.quantity.least_r2, "relative_error": s.quantity.largest_error},
                "runs": s.runs,
                "points": s.points,
                "runs_without": s.undefined,
                "seeds": s.seeds,
                "r2": finite_or_none(s.r2),
                "r2_interval": [finite_or_none(v) for v in s.r2_interval],
                "relative_error": finite_or_none(s.error),
                "relative_error_interval": [finite_or_none(v) for v in s.error_interval],
                "ratio": finite_or_none(s.ratio),
                "skill": finite_or_none(s.skill),
                "skill_interval": [finite_or_none(v) for v in s.skill_interval],
                "permuted_r2": finite_or_none(s.permuted_r2),
                "permuted_relative_error": finite_or_none(s.permuted_error),
                "direction_r2": finite_or_none(s.direction_r2),
                "predicted": not s.reason,
                "reason": s.reason,
            }
            for s in part.scores
        ],
        "layers": [
            {
                "event": s.event,
                "start": s.start,
                "theory": s.predicted,
                "share": finite_or_none(s.share),
                "interval": [finite_or_none(v) for v in s.interval],
                "exchanged": finite_or_none(s.control),
                "runs": s.runs,
                "seeds": s.seeds,
                "reason": s.reason,
            }
            for s in part.layers
        ],
        "runs": [
            {
                "name": run.name,
                "lr": run.lr,
                "seed": run.seed,
                "points": {
                    name: [[finite_or_none(p.predicted), finite_or_none(p.measured)] for p in points]
                    for name, points in run.points.items()
                },
            }
            for run in part.runs
        ],
    }


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{_number(value)} [{_number(interval[0])}, {_number(interval[1])}]"
