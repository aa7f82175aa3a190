"""Opposing-signal scores of a network's runs on real images, Gaussian surrogates and shuffled labels, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from validate.claims.base import mean_interval
from validate.claims.c07_heavy_tail import gaussian_like
from validate.equal_loss import mean_losses
from validate.opposing_score import OpposingScore, opposing_score, score_of_run
from validate.report_words import finite_or_none, interval_words
from validate.scores_at_equal_loss import EqualLoss
from validate.windows import EVALUATE_STEPS, SELECT_STEPS, find_windows, first_crossing


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
        edge_loss: mean loss, median over the steps that are scored; NaN where the run has no windows.
        score: the score; None where the run has no windows.
        surrogate: the control: score of Gaussian losses with these steps' means and covariance over steps
            (`claims.c07_heavy_tail.gaussian_like`); NaN where the run has no windows.
    """

    network: str
    data: str
    lr: float
    seed: int
    steps: int
    crossing: int | None
    highest: float
    loss: float
    edge_loss: float
    score: OpposingScore | None
    surrogate: float

    @property
    def reason(self) -> str:
        """Why there is no score; empty where there is one."""
        if self.score is not None:
            return ""
        if self.crossing is None:
            return f"no crossing of 2/η in {self.steps} steps"
        return f"crosses at step {self.crossing}: its windows need {SELECT_STEPS + EVALUATE_STEPS} more steps"


def score_run(network: str, data: str, seed: int, run: xr.Dataset) -> ScoredRun:
    """The score of a run on one of `DATA_SETS`, with that of the Gaussian surrogate of its window."""
    lr = float(run.attrs["lr"])
    windows = find_windows(run)
    surrogate, edge_loss = float("nan"), float("nan")
    if windows is not None:
        drawn = gaussian_like(run["loss"][windows.edge].values.astype(np.float64), np.random.default_rng(seed))
        surrogate = opposing_score(drawn, np.random.default_rng(seed), resamples=0).score
        edge_loss = float(np.median(mean_losses(run)[windows.edge]))
    return ScoredRun(
        network=network,
        data=data,
        lr=lr,
        seed=seed,
        steps=run.sizes["step"],
        crossing=first_crossing(run),
        highest=float(np.nanmax(run["sharpness_iterate"].values) * lr / 2),
        loss=float(run["loss"][-1].values.mean()),
        edge_loss=edge_loss,
        score=score_of_run(run, np.random.default_rng(seed)),
        surrogate=surrogate,
    )


def reference_lr(runs: Sequence[ScoredRun], network: str, lr: float, data: str) -> float:
    """Step size of the real images that a row is compared with: its own for an anchor, the first for real images."""
    return lr if data != "real" else next(r.lr for r in runs if (r.network, r.data) == (network, "real"))


def difference(runs: Sequence[ScoredRun], network: str, lr: float, data: str) -> tuple[float, ...]:
    """Scores of the reference less those of a row, each at its own crossing, over the seeds that have both.

    Real images at the first step size are the reference themselves: none.
    """
    at = reference_lr(runs, network, lr, data)
    if (lr, data) == (at, "real"):
        return ()
    of = {(r.data, r.lr, r.seed): r.score for r in runs if r.network == network}
    pairs = [(of.get(("real", at, seed)), score) for (d, own, seed), score in of.items() if (d, own) == (data, lr)]
    return tuple(real.score - other.score for real, other in pairs if real is not None and other is not None)


def equal_difference(pairs: Sequence[EqualLoss], network: str, lr: float, data: str) -> tuple[float, ...]:
    """The same at equal loss."""
    return tuple(p.reference - p.score for p in pairs if (p.network, p.lr, p.data) == (network, lr, data))


EXPLAINED = """\
Score: the share of the alternating losses at the edge that small groups carry which pull opposite ways, beyond what
they would in Gaussian losses. The leading directions, turned to their sparsest rotation, count with their energy on
other steps than they were found on, times (c − 0.28)/0.72, where c is twice the smaller of the shares that the 2.5 % of
examples at either end carry. 1: pairs of small groups carry everything; 0: Gaussian directions do, or nothing opposes
them. Concentration: the mean of c. Pairs: the effective number of directions. Surrogate, a control that should be near
0: the score of Gaussian losses with the same means and covariance over steps. Loss: median of the mean loss over the
150 steps scored.

Gaussian images have each class's mean and covariance; shuffled are the same images, labels permuted. Both are drawn
anew for each seed. The reference of an anchor is real images at the same η, that of real images those at the first η.
At equal loss: the run with less loss at its crossing over its first 60 steps there, the other later, when it has come
down to that loss. In brackets: 90 % intervals, over examples in the first table, Student's over seeds in the second.
That over examples leans low, and may lie wholly below a score near 1, for a resample unbalances the sides. A run that
does not cross 2/η has no score. Nothing is judged.
"""

RUN_HEAD = "network, images, η, seed, score, energy, concentration, pairs, surrogate, loss, crossing, largest ηλ/2"
MEAN_HEAD = "network, images, η, have a score, mean score, reference less these, the same at equal loss"


def page(runs: Sequence[ScoredRun], pairs: Sequence[EqualLoss] = ()) -> str:
    """The page in Markdown: every run, and means over the seeds that have a score, with paired differences."""
    first, second = (
        f"| {head.replace(', ', ' | ')} |\n{'|---' * len(head.split(', '))}|" for head in (RUN_HEAD, MEAN_HEAD)
    )
    lines = ["# Opposing-signal score and its anchors\n", EXPLAINED, first, *map(_run_row, runs), "", second]
    for network, lr, data in dict.fromkeys((r.network, r.lr, r.data) for r in runs):
        of = [r for r in runs if (r.network, r.lr, r.data) == (network, lr, data)]
        scores = [r.score.score for r in of if r.score is not None]
        cells = [network, data, f"{lr:g}", f"{len(scores)} of {len(of)}"]
        cells.append(interval_words(mean_interval(scores)) if scores else "–")
        apart = (difference(runs, network, lr, data), equal_difference(pairs, network, lr, data))
        cells += [f"{interval_words(mean_interval(a))}, seeds: {len(a)}" if a else "–" for a in apart]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _run_row(run: ScoredRun) -> str:
    score = run.score
    cells = [run.network, run.data, f"{run.lr:g}", str(run.seed)]
    if score is None:
        cells += [run.reason, *["–"] * 5]
    else:
        cells.append(f"{score.score:.2f} ({' to '.join(f'{b:.2f}' for b in score.interval)})")
        cells += [f"{value:.2f}" for value in (score.energy, score.concentration)] + [f"{score.pairs:.1f}"]
        cells += [f"{value:.2f}" for value in (run.surrogate, run.edge_loss)]
    cells += ["–" if run.crossing is None else str(run.crossing), f"{run.highest:.2f}"]
    return f"| {' | '.join(cells)} |"


def as_json(runs: Sequence[ScoredRun], pairs: Sequence[EqualLoss] = ()) -> dict[str, Any]:
    """The same as plain values; None for what is not there."""
    return {
        "runs": [_run_json(r) for r in runs],
        "reference_less": [
            {
                "network": network,
                "lr": lr,
                "images": data,
                "reference_lr": reference_lr(runs, network, lr, data),
                "values": list(apart),
                "interval_90": list(mean_interval(apart)) if apart else None,
                "at_equal_loss": list(equal),
                "at_equal_loss_interval_90": list(mean_interval(equal)) if equal else None,
            }
            for network, lr, data in dict.fromkeys((r.network, r.lr, r.data) for r in runs)
            for apart in (difference(runs, network, lr, data),)
            for equal in (equal_difference(pairs, network, lr, data),)
            if apart or equal
        ],
        "at_equal_loss": [asdict(pair) for pair in pairs],
    }


def _run_json(r: ScoredRun) -> dict[str, Any]:
    return {
        "network": r.network,
        "images": r.data,
        "lr": r.lr,
        "seed": r.seed,
        "steps": r.steps,
        "crossing": r.crossing,
        "highest_eta_lambda_half": finite_or_none(r.highest),
        "final_loss": finite_or_none(r.loss),
        "edge_loss": finite_or_none(r.edge_loss),
        **score_json(r.score),
        "surrogate": finite_or_none(r.surrogate),
        "reason": r.reason,
    }


def score_json(score: OpposingScore | None) -> dict[str, Any]:
    """A score and its parts as plain values; None for each where there is none."""
    return {
        "score": None if score is None else score.score,
        "interval_90": None if score is None else list(score.interval),
        "energy_share": None if score is None else score.energy,
        "concentration": None if score is None else score.concentration,
        "effective_pairs": None if score is None else score.pairs,
    }
