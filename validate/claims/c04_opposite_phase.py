"""C4: the two groups' losses move in opposite phase, and far more than those of other examples of the same classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.pairs import leading_pair
from validate.opposing_groups import (
    OpposingPair,
    group_gap,
    loss_changes,
    random_pair_like,
    random_pair_of_same_labels,
)
from validate.windows import Windows

DRAWS = 200


def phase_correlation(losses: npt.ArrayLike, pair: OpposingPair) -> float:
    """Correlation, over steps, of the two groups' mean changes of loss."""
    changes = loss_changes(losses)
    return float(np.corrcoef(changes[:, pair.positive].mean(1), changes[:, pair.negative].mean(1))[0, 1])


def swing(losses: npt.ArrayLike, pair: OpposingPair) -> float:
    """Standard deviation, over steps, of the change of the group gap."""
    return float(np.diff(group_gap(losses, pair)).std())


def _losses(evidence: NetworkEvidence, windows: Windows) -> np.ndarray:
    return np.asarray(evidence.run["loss"].values[windows.evaluate])


def _over_random(
    evidence: NetworkEvidence,
    windows: Windows,
    draw: Callable[[OpposingPair, np.random.Generator], OpposingPair],
    statistic: Callable[[npt.ArrayLike, OpposingPair], float],
) -> np.ndarray:
    rng = np.random.default_rng(evidence.seed)
    pair, losses = leading_pair(evidence, windows), _losses(evidence, windows)
    return np.array([statistic(losses, draw(pair, rng)) for _ in range(DRAWS)])


def _random_phase(evidence: NetworkEvidence, windows: Windows) -> float:
    n = evidence.run.sizes["example"]
    return float(np.median(_over_random(evidence, windows, lambda p, r: random_pair_like(p, n, r), phase_correlation)))


def same_label_phase(evidence: NetworkEvidence, windows: Windows) -> float:
    """Median phase correlation of random groups with the pair's labels: near −1 where whole classes swing."""
    labels = evidence.run["label"].values
    drawn = _over_random(evidence, windows, lambda p, r: random_pair_of_same_labels(p, labels, r), phase_correlation)
    return float(np.median(drawn))


def _same_label_swings(evidence: NetworkEvidence, windows: Windows) -> np.ndarray:
    labels = evidence.run["label"].values
    return _over_random(evidence, windows, lambda p, r: random_pair_of_same_labels(p, labels, r), swing)


def _outsized(evidence: NetworkEvidence, windows: Windows) -> float:
    own = swing(_losses(evidence, windows), leading_pair(evidence, windows))
    return own / float(np.median(_same_label_swings(evidence, windows)))


def _outsized_control(evidence: NetworkEvidence, windows: Windows) -> float:
    swings = _same_label_swings(evidence, windows)
    return float(np.quantile(swings, 0.95) / np.median(swings))


CLAIMS = (
    Claim(
        name="C4a",
        statement="Opposite phase: when one group's loss rises, the other's falls.",
        statistic="correlation of the two groups' loss changes, on steps the groups were not chosen on",
        bound=Bound(high=-0.7),
        control="random groups of the same size (median of 200)",
        measure=each_seed(lambda e, w: phase_correlation(_losses(e, w), leading_pair(e, w))),
        measure_control=each_seed(_random_phase),
        figure="F1",
        needs=("base",),
    ),
    Claim(
        name="C4b",
        statement="Outsized: the pair's gap swings more than that of other examples of the same classes.",
        statistic="swing of the group gap over the median swing of random groups with the same labels",
        bound=Bound(low=2.0),
        control="random groups with the same labels (95th percentile of 200)",
        measure=each_seed(_outsized),
        measure_control=each_seed(_outsized_control),
        figure="F1",
        needs=("base",),
    ),
)
