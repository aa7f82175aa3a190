"""Opposing-signal scores of a network's runs on real images, Gaussian surrogates and shuffled labels, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from validate.claims.base import mean_interval
from validate.opposing_score import OpposingScore, score_of_run
from validate.report_words import interval_words
from validate.score_anchors import DATA_SETS
from validate.windows import EVALUATE_STEPS, SELECT_STEPS, first_crossing


@dataclass(frozen=True)
class ScoredRun:
    """A run with its score, or why it has none.

    Attributes:
        network: kind of network.
        data: key of `validate.score_anchors.DATA_SETS`.
        lr: step size η.
        seed: of the weights, and of the anchor's draw.
        steps: number of steps.
        crossing: step of the first crossing of 2/η; None where there is none.
        highest: largest ηλ/2 measured.
        loss: mean loss at the end.
        score: the score; None where the run has no windows.
    """

    network: str
    data: str
    lr: float
    seed: int
    steps: int
    crossing: int | None
    highest: float
    loss: float
    score: OpposingScore | None

    @property
    def reason(self) -> str:
        """Why there is no score; empty where there is one."""
        if self.score is not None:
            return ""
        if self.crossing is None:
            return f"no crossing of 2/η in {self.steps} steps"
        return f"crosses at step {self.crossing}: its windows need {SELECT_STEPS + EVALUATE_STEPS} more steps"


def score_run(network: str, data: str, seed: int, run: xr.Dataset) -> ScoredRun:
    """The score of a run on one of `DATA_SETS`."""
    lr = float(run.attrs["lr"])
    return ScoredRun(
        network=network,
        data=data,
        lr=lr,
        seed=seed,
        steps=run.sizes["step"],
        crossing=first_crossing(run),
        highest=float(np.nanmax(run["sharpness_iterate"].values) * lr / 2),
        loss=float(run["loss"].values[-1].mean()),
        score=score_of_run(run, np.random.default_rng(seed)),
    )


def difference(runs: Sequence[ScoredRun], network: str, lr: float, anchor: str) -> tuple[float, ...]:
    """Scores of the real images less those of an anchor, over the seeds that have both."""
    of = {(r.data, r.seed): r.score for r in runs if (r.network, r.lr) == (network, lr)}
    pairs = [(of.get(("real", seed)), score) for (data, seed), score in of.items() if data == anchor]
    return tuple(real.score - other.score for real, other in pairs if real is not None and other is not None)


EXPLAINED = """\
Score: the share of the alternating losses along their leading direction, times twice the smaller of the shares that the
2.5 % of examples at its either end carry. 1: two opposing groups carry everything; 0.28: a Gaussian direction does; 0:
one side alone swings. Gaussian: images with each class's mean and covariance. Shuffled: the same images, labels
permuted. Both are drawn anew for each seed. In brackets: 90 % intervals, over examples in the first table, Student's
over seeds in the second. A run that does not cross 2/η has no score. Nothing is judged.
"""


def page(runs: Sequence[ScoredRun]) -> str:
    """The page in Markdown: every run, and means over the seeds that have a score, with paired differences."""
    lines = ["# Opposing-signal score and its anchors\n", EXPLAINED]
    lines.append("| network | images | η | seed | score | energy along the direction | crossing | largest ηλ/2 |")
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [_run_row(run) for run in runs]
    lines += [
        "",
        "| network | images | η | have a score | mean score | real less these, paired |",
        "|---|---|---|---|---|---|",
    ]
    for network, lr, data in dict.fromkeys((r.network, r.lr, r.data) for r in runs):
        of = [r for r in runs if (r.network, r.lr, r.data) == (network, lr, data)]
        scores = [r.score.score for r in of if r.score is not None]
        apart = difference(runs, network, lr, data) if data != "real" else ()
        lines.append(
            f"| {network} | {data} | {lr:g} | {len(scores)} of {len(of)} | "
            f"{interval_words(mean_interval(scores)) if scores else '–'} | "
            f"{f'{interval_words(mean_interval(apart))}, {len(apart)} seeds' if apart else '–'} |"
        )
    return "\n".join(lines) + "\n"


def _run_row(run: ScoredRun) -> str:
    score = run.score
    cells = [run.network, run.data, f"{run.lr:g}", str(run.seed)]
    cells.append(
        run.reason if score is None else f"{score.score:.2f} ({' to '.join(f'{b:.2f}' for b in score.interval)})"
    )
    cells.append("–" if score is None else f"{score.energy:.2f}")
    cells += ["–" if run.crossing is None else str(run.crossing), f"{run.highest:.2f}"]
    return f"| {' | '.join(cells)} |"


def as_json(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """The same as plain values; None for what is not there."""
    return {
        "runs": [
            {
                "network": r.network,
                "images": r.data,
                "lr": r.lr,
                "seed": r.seed,
                "steps": r.steps,
                "crossing": r.crossing,
                "highest_eta_lambda_half": _number(r.highest),
                "final_loss": _number(r.loss),
                "score": None if r.score is None else r.score.score,
                "interval_90": None if r.score is None else list(r.score.interval),
                "energy_share": None if r.score is None else r.score.energy,
                "reason": r.reason,
            }
            for r in runs
        ],
        "real_less": [
            {
                "network": network,
                "lr": lr,
                "images": anchor,
                "values": list(apart),
                "interval_90": list(mean_interval(apart)) if apart else None,
            }
            for network, lr in dict.fromkeys((r.network, r.lr) for r in runs)
            for anchor in DATA_SETS
            if anchor != "real"
            for apart in (difference(runs, network, lr, anchor),)
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
